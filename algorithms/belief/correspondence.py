"""What became of every message that the agents had for each other: for whoever wants to read along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oneiros.algorithms.belief.channel import Channel
from oneiros.algorithms.belief.seats import ALIVE, Seats
from oneiros.algorithms.contract import Field

SAID, NATS = "said", "believed_wrong"
"""What acting adds to its rows while messages are kept: the tokens of all messages, and what the gate judged by."""


class Correspondent:
    """The part of a belief agent that answers for its channel: how much may be sent, and what was."""

    channel: Channel
    seats: Seats
    latent_fields: Mapping[str, Field]

    def limit_bits(self, bits: float | None) -> None:
        """Let no agent send more than ``bits`` an episode from now on; None is no limit.

        Raises ``ValueError`` where there is no channel.
        """
        if not self.channel.width:
            raise ValueError("These agents send no messages, so there are no bits to limit.")
        self.channel.settings = self.channel.settings.model_copy(update={"bit_budget": bits})

    def keep_messages(self, keep: bool) -> bool:
        """Whether rows from now on say all that ``messages`` reads off them; not meant for rows that are trained on.

        Returns whether these agents send each other messages at all.
        """
        fields = {key: field for key, field in self.latent_fields.items() if key not in (SAID, NATS)}
        if keep and self.channel.width:
            settings, agents = self.channel.settings, len(self.seats.names)
            fields[SAID] = Field((agents, settings.tokens), np.dtype(np.uint8))
            if settings.gate != "always":
                fields[NATS] = Field((agents,), np.dtype(np.float32))
        self.latent_fields = fields
        return self.channel.width > 0

    def messages(self, rows: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
        """What each agent had to say in each of the rows ``(T, ...)`` of one episode, and what became of it.

        A ``step`` is a row. ``tokens`` are what the agent says, ``arrived_as`` what a shuffled channel made of them.
        A message is ``sent``, or ``withheld_by`` the ``gate`` or the ``budget``; sent, it costs ``bits``, and is either
        ``dropped`` or ``delivered`` in a later step (null where the episode ended first) to those of its listeners
        ``to`` who are there, ``read_by``. Where a gate opens, ``believed_wrong`` says by how many nats.
        """
        channel, names, s = self.channel, self.seats.names, self.channel.settings
        there = self.seats.flag({k: torch.from_numpy(v) for k, v in rows.items()}, ALIVE, torch.device("cpu")) > 0
        spent, said = rows["latent/bits"], rows[f"latent/{SAID}"]
        sent = np.diff(spent, axis=0, prepend=np.zeros_like(spent[:1])) > 0
        arriving = rows["latent/messages"][:, -1]
        carried = np.asarray((arriving < s.vocabulary).all(-1))
        nats = rows.get(f"latent/{NATS}")
        found: list[dict[str, Any]] = []
        for t, g in there.nonzero().tolist():
            withheld = None
            if not sent[t, g]:
                withheld = "gate" if nats is not None and not nats[t, g] > s.gate_nats else "budget"
            to = [j for j in range(len(names)) if channel.hears[j, g] > 0]
            read = t + s.delay if carried[t, g] and t + s.delay < len(there) else None
            message = {
                "step": t,
                "from": names[g],
                "to": [names[j] for j in to],
                "tokens": said[t, g].tolist(),
                "sent": withheld is None,
                "withheld_by": withheld,
                "dropped": bool(sent[t, g] and not carried[t, g]),
                "delivered": read,
                "read_by": [] if read is None else [names[j] for j in to if there[read, j]],
                "bits": s.bits if sent[t, g] else 0.0,
            }
            if s.shuffled:
                message["arrived_as"] = arriving[t, g].tolist() if carried[t, g] else None
            if nats is not None:
                message["believed_wrong"] = float(nats[t, g])
            found.append(message)
        return found

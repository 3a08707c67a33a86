"""One agent by itself: what a process needs that acts for this agent alone, and is given nothing but its payload."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gymnasium import spaces
from oneiros.algorithms.belief.agent import Belief
from oneiros.algorithms.contract import Mode, Tensors
from torch import Tensor


class Seat:
    """Acts for the agent ``name`` of a policy; equal, bit for bit, to its part in the joint policy of the same seed.

    A payload is the agent's own entries ``agent/<name>/...`` ``(N, ...)`` and what it hears: the messages that arrive
    for it, ``(N, G senders, L * K)``, silence being zeros. Carrying what it says to others, with the channel's delay,
    is whoever's connects the seats.

    Raises ``ValueError`` for a name that is none of the agents'.
    """

    def __init__(self, policy: Belief, name: str) -> None:
        if name not in policy.seats.names:
            raise ValueError(f"There is no agent {name!r}; there are {', '.join(policy.seats.names)}.")
        if policy.config.variant == "centralised":
            raise ValueError(
                "Agents of one centralised mind cannot act apart; choose the variant belief or independent."
            )
        self.policy, self.name = policy, name
        self.index = policy.seats.names.index(name)
        self.keys = frozenset(key for key in policy.obs_space if key.startswith(f"agent/{name}/"))

    def initial_state(self, batch: int) -> Tensors:
        """As the policy's; the entries of the other agents stay as they are at the beginning of an episode."""
        return self.policy.initial_state(batch)

    def act(
        self,
        own: Mapping[str, Tensor],
        heard: Tensor | None,
        is_first: Tensor,
        state: Tensors,
        mode: Mode = "train",
    ) -> tuple[Tensors, Tensor, Tensors]:
        """Choose this agent's actions for ``N`` environments.

        Returns its action, what it says ``(N, L * K)``, and its state. Raises ``ValueError`` if the payload has an
        entry that is not this agent's, or lacks one.
        """
        if own.keys() != self.keys:
            needed, given = ", ".join(sorted(self.keys)), ", ".join(sorted(own))
            raise ValueError(f"The payload of {self.name} must hold {needed}; it holds {given}.")
        obs = self._nobody(len(is_first)) | dict(own)
        if heard is not None:
            under_way = state["under_way"].clone()
            under_way[:, 0] = heard.to(under_way.device)
            state = {**state, "under_way": under_way}
        action, state, _ = self.policy.act(obs, is_first, state, mode)
        said = state["under_way"][:, -1, self.index]
        mine = f"action/{self.name}"
        return {k: v for k, v in action.items() if k == mine or k.startswith(f"{mine}/")}, said, state

    def _nobody(self, batch: int) -> Tensors:
        """The entries of the other agents, as if they were not there."""
        blank: Tensors = {}
        for key, space in self.policy.obs_space.items():
            if key.startswith("agent/") and key not in self.keys:
                dtype = torch.uint8 if isinstance(space, spaces.Box) and str(space.dtype) == "uint8" else torch.float32
                blank[key] = torch.zeros(batch, *(space.shape or ()), dtype=dtype)
        return blank

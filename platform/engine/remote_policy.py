"""The policy as an env runner has it that asks the learner's device for actions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import ray
import torch
from oneiros.algorithms.contract import Mode, Tensors
from oneiros.platform.engine.inference import Answer, Arrays, Request
from oneiros.platform.engine.published import Published
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError
from torch import Tensor

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""Between two questions to a process that is being started again."""
SECONDS_TO_START = 300.0
"""How long one may take to start before a runner gives up."""
SECONDS_OF_THE_DEAD = 10.0
"""The same for one that Ray says will not start again."""


class NoAnswer(RuntimeError):
    """The process that acts for env runners is gone, and no other has come in its place for too long."""


class Acted(NamedTuple):
    """What happened since the last time that somebody asked."""

    updates: int
    """Version of the oldest weights that acted."""
    retries: int
    """Requests that had to be asked again."""


class RemotePolicy:
    """A ``Policy`` whose weights are elsewhere.

    Requests say everything that answering them needs, so one that got no answer is asked again, of the process that Ray
    has started meanwhile. One that has answered before and does not for ``patience`` seconds is ended, so that Ray does
    start another.
    """

    def __init__(self, published: Published, mode: Mode, patience: float) -> None:
        """Raises ``NoAnswer``."""
        self.mode: Mode = mode
        self._published = published
        self._patience = patience
        self._alive = False
        self._answered = -1
        self._updates = published.updates
        self._oldest: int | None = None
        self._retries = 0
        self._logged = False
        self._give_weights()
        self.latent_fields, _ = self._insist("describe", 1)

    def offer(self, newest: Published) -> None:
        """Have newer weights act from now on; returns at once."""
        self._published = newest
        if newest.number > self._answered:
            newest.server.take.remote(self.mode, newest)

    def initial_state(self, batch: int) -> Tensors:
        """See ``contract.Policy``."""
        _, state = self._insist("describe", batch)
        return _tensors(state)

    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        """See ``contract.Policy``; raises ``NoAnswer``."""
        answer: Answer = self._insist("act", Request(_arrays(obs), is_first.numpy(), _arrays(state)))
        self._answered, self._updates = answer.number, answer.updates
        self._oldest = answer.updates if self._oldest is None else min(answer.updates, self._oldest)
        return _tensors(answer.action), _tensors(answer.state), _tensors(answer.latents)

    def acted(self) -> Acted:
        """Say which weights have acted, and what went wrong, since the last call."""
        oldest = self._updates if self._oldest is None else self._oldest
        retries, self._retries, self._oldest = self._retries, 0, None
        return Acted(oldest, retries)

    def _give_weights(self) -> None:
        if not self._ask("take", self.mode, self._published):
            raise NoAnswer("the weights that should act are gone with the learner that held them")

    def _insist(self, method: str, argument: Any) -> Any:
        """Ask for something that needs weights; who was started again has none, and is given them."""
        while (answer := self._ask(method, self.mode, argument)) is None:
            self._retries += 1
            self._give_weights()
        return answer

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Ask until there is an answer; raises ``NoAnswer``."""
        missed_at: float | None = None
        patience = SECONDS_TO_START
        while missed_at is None or time.monotonic() - missed_at < patience:
            server = self._published.server
            try:
                answer = ray.get(getattr(server, method).remote(*arguments), timeout=self._patience)
            except (GetTimeoutError, RayActorError) as error:
                self._miss(server, error)
                if isinstance(error, ActorDiedError):
                    # As when the learner is placed elsewhere; who acts now is told with the next request to collect.
                    patience = SECONDS_OF_THE_DEAD
                missed_at = missed_at or time.monotonic()
                time.sleep(PAUSE_SECONDS)
            else:
                self._alive = True
                return answer
        raise NoAnswer(f"nobody has acted for env runners for {patience:.0f} s")

    def _miss(self, server: Any, error: Exception) -> None:
        if not self._alive:
            return  # It is only starting.
        self._alive = False
        self._retries += 1
        if isinstance(error, GetTimeoutError):
            ray.kill(server, no_restart=False)
        if not self._logged:
            self._logged = True
            log.warning("whoever acts for env runners is gone (%s) and is asked again", str(error).splitlines()[0])


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {key: value.numpy() for key, value in tensors.items()}


def _tensors(arrays: Arrays) -> Tensors:
    # What Ray hands out may be shared memory that nobody may write to.
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}

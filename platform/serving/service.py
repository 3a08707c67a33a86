"""The policy as a service: requests in, actions out, everybody's state kept in between. No HTTP and no Ray in here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from oneiros.algorithms.contract import Mode
from oneiros.platform.checkpoint.spaces import describe, space_to_json
from oneiros.platform.export.acting import ExportedPolicy, State, nest, value_at
from oneiros.platform.serving.observation_json import read, write
from oneiros.platform.serving.refusals import BadRequest, Refused
from oneiros.platform.serving.sessions import Sessions


@dataclass(frozen=True)
class ActRequest:
    """One step of one session: ``observation`` as JSON; ``first`` says that an episode begins with it."""

    session: str
    observation: Any
    first: bool = False
    mode: Mode = "eval"

    @classmethod
    def parse(cls, session: str, body: Any) -> ActRequest:
        """Read the body of a request; raises ``BadRequest``."""
        if not isinstance(body, dict) or "observation" not in body:
            raise BadRequest('the body must be an object with "observation", and maybe "first" and "mode"')
        if unknown := sorted(body.keys() - {"observation", "first", "mode"}):
            raise BadRequest(f"the body has no entry {unknown[0]!r}; it has observation, first and mode")
        first, mode = body.get("first", False), body.get("mode", "eval")
        if not isinstance(first, bool):
            raise BadRequest(f"first must be true or false, not {first!r}")
        if mode not in get_args(Mode):
            raise BadRequest(f"mode must be eval (the best action) or train (a sample), not {mode!r}")
        return cls(session, body["observation"], first, mode)


class PolicyService:
    """Acts for many sessions at once; all methods may be called from several threads."""

    def __init__(
        self,
        policy: ExportedPolicy,
        *,
        most_sessions: int = 1_000,
        idle_seconds: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self.sessions = Sessions(most_sessions, idle_seconds, clock)
        self.steps = 0
        self.batches = 0
        self.refused = 0
        self._lock = threading.Lock()

    def open(self) -> str:
        """Begin a session; raises ``TooManySessions``."""
        with self._lock:
            return self.sessions.open()

    def close(self, session: str) -> None:
        """Forget a session; raises ``UnknownSession``."""
        with self._lock:
            self.sessions.close(session)

    def act(self, requests: Sequence[ActRequest]) -> list[Any]:
        """Answer ``requests``: for each the action as JSON, or a ``Refused`` that says why not.

        Requests of different sessions share one forward pass; several of one session are answered in their order.
        """
        answers: list[Any] = [None] * len(requests)
        with self._lock:
            waiting: dict[int, Any] = {}
            for index, request in enumerate(requests):
                try:
                    self.sessions.use(request.session)
                    waiting[index] = read(self.policy.observation_space, request.observation)
                except Refused as refusal:
                    self.refused += 1
                    answers[index] = refusal
            while waiting:
                batch = _one_each(requests, waiting)
                for index, action in zip(batch, self._step(requests, batch, waiting), strict=True):
                    answers[index] = action
                    del waiting[index]
        return answers

    def describe(self) -> dict[str, Any]:
        """What is served, what it takes, and how busy it is: JSON."""
        manifest, sessions = self.policy.manifest, self.sessions
        observation, action = (space_to_json(s) for s in (self.policy.observation_space, self.policy.action_space))
        with self._lock:
            sessions.expire()
            return {
                "algorithm": manifest.algorithm,
                "env": self.policy.env,
                "env_steps": manifest.env_steps,
                "oneiros": manifest.oneiros,
                "observation": {"summary": describe(observation), **observation},
                "action": {"summary": describe(action), **action},
                "sessions": {
                    "open": len(sessions),
                    "most": sessions.most,
                    "idle_seconds": sessions.idle_seconds,
                    "expired": sessions.expired,
                },
                "steps": self.steps,
                "batches": self.batches,
                "refused": self.refused,
            }

    def _step(self, requests: Sequence[ActRequest], batch: Sequence[int], observations: dict[int, Any]) -> list[Any]:
        """One forward pass for requests of different sessions and one mode."""
        leaves = self.policy.observations.leaves
        stacked = nest(
            (leaf, np.stack([np.asarray(value_at(observations[index], leaf)) for index in batch])) for leaf in leaves
        )
        sessions = [self.sessions.use(requests[index].session) for index in batch]
        first = np.array([requests[i].first or s.state is None for i, s in zip(batch, sessions, strict=True)])
        empty = self.policy.initial_state(1)
        states = [empty if session.state is None else session.state for session in sessions]
        joined: State = {key: np.concatenate([state[key] for state in states]) for key in empty}
        actions, following = self.policy.act(stacked, joined, first, requests[batch[0]].mode)
        for row, session in enumerate(sessions):
            session.state = {key: value[row : row + 1].copy() for key, value in following.items()}
        self.steps += len(batch)
        self.batches += 1
        return [_row(actions, row) for row in range(len(batch))]


def _one_each(requests: Sequence[ActRequest], waiting: dict[int, Any]) -> list[int]:
    """The first request of each session, of those in the mode of the very first."""
    mode = requests[next(iter(waiting))].mode
    firsts: dict[str, int] = {}
    for index in waiting:
        firsts.setdefault(requests[index].session, index)
    return [index for index in firsts.values() if requests[index].mode == mode]


def _row(actions: Any, row: int) -> Any:
    if isinstance(actions, dict):
        return {key: _row(value, row) for key, value in actions.items()}
    if isinstance(actions, tuple):
        return [_row(value, row) for value in actions]
    return write(actions[row])

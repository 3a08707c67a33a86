"""One environment of several: stepped, reset when its episode is over, brought back when it faults."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from oneiros.envs.options import AnyEnv
from oneiros.envs.vector.buffer import ObservationBuffer
from oneiros.envs.vector.fault import EnvironmentBroken, EnvironmentFault

MOST_FAULTS = 5
"""Faults in a row, without one good step between them, after which an environment counts as broken."""

Info = dict[str, Any]
Outcome = tuple[float, bool, bool, Info, EnvironmentFault | None]
"""Reward, terminated, truncated, info, and the fault that made this step the first of a new episode."""


class Slot:
    """Steps one environment and writes its observations to row ``index`` of ``buffer``.

    Next-step autoreset: the step after the last of an episode ignores its action and resets. A step that faults
    resets at once: its outcome carries the fault, and the row then holds the first observation of a new episode.
    Resetting again, then building the environment anew, is tried before ``EnvironmentBroken`` is raised.
    """

    def __init__(
        self,
        factory: Callable[[], AnyEnv],
        buffer: ObservationBuffer,
        index: int,
        name: str,
        env: AnyEnv | None = None,
        before_recovery: Callable[[], None] = lambda: None,
    ) -> None:
        self.env = factory() if env is None else env
        self.ended = False
        self._factory = factory
        self._buffer = buffer
        self._index = index
        self._name = name
        self._before_recovery = before_recovery
        self._faults_in_a_row = 0
        self._seed: int | None = None
        self._rebuilt = 0

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[Info, EnvironmentFault | None]:
        """Begin an episode; returns its info and the last fault on the way there."""
        self.ended = False
        if seed is not None:
            self._seed = seed
        last: EnvironmentFault | None = None
        while True:
            try:
                observation, info = self.env.reset(seed=seed, options=options)
                self._buffer.write(self._index, observation)
                return info, last
            except EnvironmentFault as fault:
                last = self._count(fault)
            except Exception as error:
                last = self._count(_raised(error, "reset"))
            if self._faults_in_a_row > 1:
                self._rebuild()
                seed = self._next_seed()

    def step(self, action: Any) -> Outcome:
        """Execute ``action``, or begin the next episode if the last one is over."""
        if self.ended:
            self._before_recovery()
            info, fault = self.reset()
            return 0.0, False, False, info, fault
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            reward = _reward(reward)
            self._buffer.write(self._index, observation)
        except EnvironmentFault as fault:
            return self._recover(fault)
        except Exception as error:
            return self._recover(_raised(error, "step"))
        self._faults_in_a_row = 0
        terminated, truncated = bool(terminated), bool(truncated)
        self.ended = terminated or truncated
        return reward, terminated, truncated, info, None

    def close(self) -> None:
        """Close the environment; what it raises then is nobody's business any more."""
        try:
            self.env.close()  # type: ignore[no-untyped-call]
        except Exception:
            return

    def _recover(self, fault: EnvironmentFault) -> Outcome:
        self._count(fault)
        self._before_recovery()
        info, _ = self.reset()
        return 0.0, False, False, info, fault

    def _count(self, fault: EnvironmentFault) -> EnvironmentFault:
        self._faults_in_a_row += 1
        if self._faults_in_a_row >= MOST_FAULTS:
            raise EnvironmentBroken(
                f"{self._name} faulted {self._faults_in_a_row} times in a row without one good step; the last: {fault}"
            ) from fault
        return fault

    def _next_seed(self) -> int | None:
        """What an environment built anew begins with: not the same episodes again, and yet the same in every run."""
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, self._rebuilt], spawn_key=(1,)).generate_state(1)[0])

    def _rebuild(self) -> None:
        self.close()
        self._rebuilt += 1
        try:
            self.env = self._factory()
        except Exception as error:
            self._count(_raised(error, "being built"))


def _reward(value: Any) -> float:
    try:
        reward = float(value)
    except (TypeError, ValueError):
        raise EnvironmentFault("reward", f"the reward is a number, not {type(value).__name__} {value!r}") from None
    if not math.isfinite(reward):
        raise EnvironmentFault("nan", f"the reward is {reward}")
    return reward


def _raised(error: Exception, during: str) -> EnvironmentFault:
    place = traceback.extract_tb(error.__traceback__)
    where = f" at {place[-1].filename}:{place[-1].lineno}" if place else ""
    return EnvironmentFault("raised", f"{type(error).__name__} during {during}{where}: {error}")

"""An environment that costs nothing, or exactly as much as it is told to."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from oneiros.platform.bench.kinds import find_kind

NULL_ENV = "oneiros.platform.bench.null_env:OneirosNull-v0"
"""Its id: naming the module makes it known in every process that builds it."""


class NullEnv(gymnasium.Env[NDArray[Any], Any]):
    """Returns the same observation again and again, of the spaces of ``kind``, in episodes of ``length`` steps.

    A step takes ``step_ms`` milliseconds: of computing, as a simulator does, or, with ``waits``, of sleeping, as what
    talks to another process does.
    """

    def __init__(self, kind: str = "state", step_ms: float = 0.0, waits: bool = False, length: int = 1000) -> None:
        found = find_kind(kind)
        self.observation_space = found.observation_space
        self.action_space = found.action_space
        self._observation = np.zeros(found.observation_space.shape, found.observation_space.dtype)
        self._step_s, self._waits, self._length = step_ms / 1e3, waits, length
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin an episode."""
        self._steps = 0
        return self._observation, {}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Take as long as it should, and change nothing."""
        if self._step_s:
            self._spend()
        self._steps += 1
        return self._observation, 1.0, False, self._steps >= self._length, {}

    def _spend(self) -> None:
        if self._waits:
            time.sleep(self._step_s)
            return
        until = time.perf_counter() + self._step_s
        while time.perf_counter() < until:
            pass


gymnasium.register(NULL_ENV.partition(":")[2], entry_point=f"{__name__}:NullEnv")

"""An environment that goes wrong at random, in every way that one can and still be an environment."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 50


class SoakEnv(gymnasium.Env[Any, Any]):
    """Pays 1 for the action that the observation names. Chances are per step; a fault draws from the system's noise,
    so that an environment that is built again does not fail at the same step again.
    """

    def __init__(
        self,
        step_ms: float = 2.0,
        hangs: float = 0.0,
        raises: float = 0.0,
        nan: float = 0.0,
        shape: float = 0.0,
        dies: float = 0.0,
    ) -> None:
        self.observation_space = spaces.Box(-1, 1, (4,), np.float32)
        self.action_space = spaces.Discrete(4)
        self._seconds = step_ms / 1000
        self._chances = {"hangs": hangs, "raises": raises, "nan": nan, "shape": shape, "dies": dies}
        self._noise = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode of ``LENGTH`` steps."""
        super().reset(seed=seed)
        self._left = LENGTH
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a little time, as a real one does; sometimes for ever."""
        time.sleep(self._seconds)
        reward = float(action == self._named)
        self._left -= 1
        observation = self._observe()
        for fault, chance in self._chances.items():
            if chance and self._noise.random() < chance:
                observation = self._go_wrong(fault, observation)
        return observation, reward, self._left == 0, False, {}

    def _observe(self) -> Any:
        self._named = int(self.np_random.integers(4))
        return np.eye(4, dtype=np.float32)[self._named]

    def _go_wrong(self, fault: str, observation: Any) -> Any:
        match fault:
            case "hangs":
                time.sleep(10**6)
            case "raises":
                raise RuntimeError("this environment raises now and then")
            case "nan":
                return observation * np.float32("nan")
            case "shape":
                return observation[:3]
            case "dies":
                os._exit(7)
        return observation


gymnasium.register("Soak-v0", SoakEnv)

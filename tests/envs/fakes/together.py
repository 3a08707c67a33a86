"""A suite whose environments step together: counters of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from oneiros.envs.contract import NOTHING, InvalidOption
from scripted import Scripted  # type: ignore[import-not-found]


class Counters(VectorEnv[Any, Any, Any]):
    """Counts to an environment's own length, and begins again in the step after."""

    def __init__(self, num_envs: int, seeds: Sequence[int] | None) -> None:
        self.num_envs, self.seeds = num_envs, seeds
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = spaces.Box(-np.inf, np.inf, (num_envs, 1), np.float32)
        self.action_space = spaces.MultiDiscrete([3] * num_envs)
        self.lengths = np.arange(num_envs) + 2

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.counts = np.zeros(self.num_envs, np.int64)
        return self.observe(), {"each": [{}] * self.num_envs}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        over = self.counts == self.lengths
        self.counts = np.where(over, 0, self.counts + 1)
        ended = self.counts == self.lengths
        each = [{"log_count": float(count)} if end else {} for count, end in zip(self.counts, ended, strict=True)]
        return self.observe(), np.ones(self.num_envs), ended, np.zeros(self.num_envs, bool), {"each": each}

    def observe(self) -> Any:
        return self.counts[:, None].astype(np.float32)


class Together:
    name = "together"
    description = "counters that step in one call"
    requirement = NOTHING

    def tasks(self) -> list[str]:
        return ["count"]

    def make(self, task: str, **options: Any) -> Any:
        return Scripted()

    def make_vector(self, task: str, num_envs: int, seeds: Sequence[int] | None, **options: Any) -> Any:
        if options:
            raise InvalidOption(f"together/{task} takes no option {min(options)!r}")
        return Counters(num_envs, seeds)

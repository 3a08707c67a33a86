"""An environment whose observations say exactly where they belong, and that faults where it is told to."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import NOTHING, UnknownEnvironment

LENGTHS = (3, 5, 1, 4)
"""Steps of the episodes, in turn; every second one terminates, the others are truncated."""


class Scripted(gymnasium.Env[Any, Any]):
    """Observation: (env, episode, step, last action); the reward is 10 * episode + step."""

    def __init__(
        self,
        action_space: spaces.Space[Any] | None = None,
        fault: str = "",
        at: tuple[int, int] = (1, 2),
        number: int = 0,
        both: bool = False,
        lengths: tuple[int, ...] = LENGTHS,
    ) -> None:
        self.action_space = action_space or spaces.Discrete(4)
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.fault, self.at, self.number, self.both, self.lengths = fault, at, number, both, lengths
        self.episode, self.t = -1, 0

    def observe(self, action: float) -> Any:
        return np.array([self.number, self.episode, self.t, action], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        if self.fault == "reset" and self.episode == self.at[0]:
            raise RuntimeError("cannot reset")
        if self.fault == "never":
            raise RuntimeError("cannot ever reset")
        return self.observe(-1), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.t += 1
        value = float(np.asarray(action).ravel()[0])
        observation, reward = self.observe(value), 10.0 * self.episode + self.t
        if self.fault and (self.episode, self.t) == self.at:
            if self.fault == "lost":
                return observation, 0.0, False, True, {"episode_fault": "the game is gone"}
            observation, reward = self.go_wrong(observation, reward)
        done = self.t >= self.lengths[self.episode % len(self.lengths)]
        terminated = done and (self.both or self.episode % 2 == 0)
        truncated = done and (self.both or not terminated)
        return observation, reward, terminated, truncated, {"log_total": self.t, "other": "x"}

    def go_wrong(self, observation: Any, reward: float) -> tuple[Any, Any]:
        if self.fault == "raised":
            raise RuntimeError("broken on purpose")
        if self.fault == "hang":
            time.sleep(60)
        if self.fault == "died":
            os._exit(3)
        if self.fault == "leak":
            # What it is allowed is a fraction of this; where nobody stops it, it only raises.
            self.leaked = [bytearray(os.urandom(1)) * 2**20 for _ in range(1024)]
            raise RuntimeError("a gigabyte was to be had")
        wrong = {
            "nan": (np.full(4, np.nan, np.float32), reward),
            "nan reward": (observation, float("inf")),
            "shape": (np.zeros(3, np.float32), reward),
            "dtype": (np.array(["a", "b", "c", "d"]), reward),
            "reward": (observation, "much"),
        }
        return wrong.get(self.fault, (observation, reward))


class Toys:
    """A suite of one package's own."""

    name = "toys"
    description = "for tests"
    requirement: Any = NOTHING

    def tasks(self) -> list[str]:
        return ["scripted", "other"]

    def make(self, task: str, **options: Any) -> gymnasium.Env[Any, Any]:
        if task not in self.tasks():
            raise UnknownEnvironment()
        return Scripted(**options)

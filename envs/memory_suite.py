"""Tasks that a policy without memory fails by construction: ``memory/cue-20``, ``memory/tmaze-20``, ``memory/hold-20``.

The number is the delay: how many observations lie between the last that shows the cue and the (last) one at which it
counts.
Nothing in those observations, nor in the last, tells which cue was shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import NOTHING, InvalidOption, UnknownEnvironment
from oneiros.envs.options import GENERIC, AnyEnv
from oneiros.envs.snapshot import rng_state, set_rng_state

DELAYS = (5, 20, 50, 100)
Observation = NDArray[np.float32]


class Cue(gymnasium.Env[Observation, np.int64]):
    """A cue is shown once; after ``delay`` steps without information, the action that it named is wanted.

    Observation ``(cues + 2,)``: the cue one-hot on the first step only, "answer now" on the last, and the share of the
    waiting time that is over. Actions: ``cues`` answers. While waiting, actions do nothing. The episode always
    terminates after ``delay + 2`` observations. Reward: 1 for the right answer, 0 for another.

    Mean return: 1 at best; ``1 / cues`` for every policy without memory, random ones included.
    """

    def __init__(self, delay: int = 20, cues: int = 4, render_mode: str | None = None) -> None:
        self.delay, self.cues, self.render_mode = delay, cues, render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (cues + 2,), np.float32)
        self.action_space = spaces.Discrete(cues)
        self.cue = 0
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Show a cue, drawn uniformly."""
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(self.cues))
        self.time = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Wait one step, or answer."""
        answering = self.time == self.delay + 1
        self.time += 1
        reward = float(answering and int(action) == self.cue)
        return self._observe(), reward, answering, False, {"log_right": reward} if answering else {}

    def get_state(self) -> Mapping[str, Any]:
        """The cue, the time and the random generator."""
        return {"cue": self.cue, "time": self.time, "rng": rng_state(self)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        self.cue, self.time = int(state["cue"]), int(state["time"])
        set_rng_state(self, state["rng"])

    def render(self) -> Any:
        """The observation as a strip of grey squares ``(16, 16 * entries, 3)``, with ``render_mode="rgb_array"``."""
        return strip(self._observe()) if self.render_mode == "rgb_array" else None

    def _observe(self) -> Observation:
        observation = np.zeros(self.cues + 2, np.float32)
        if self.time == 0:
            observation[self.cue] = 1.0
        observation[-2] = self.time == self.delay + 1
        observation[-1] = min(1.0, self.time / (self.delay + 1))
        return observation


class TMaze(gymnasium.Env[Observation, np.int64]):
    """A corridor with a fork at its end; which way to turn is shown only at its beginning (Bakker, 2001).

    Observation ``(5,)``: the cue (left or right, one-hot, on the first step only), whether the agent stands in the
    corridor, whether it stands at the fork, and how far along the corridor it is. Actions: forward, back, left, right.
    Forward and back move within the corridor of ``delay + 1`` cells; turning there does nothing. Turning at the fork
    terminates: reward 1 for the side of the cue, -0.1 for the other. Each other step costs ``0.1 / (delay + 1)``, and
    after ``4 * (delay + 2)`` steps the episode is truncated.

    Mean return: 0.9 at best (straight to the fork, right turn); 0.35 at best without memory (straight, any turn). A
    uniformly random policy seldom reaches a long corridor's end: about -0.4 at a delay of 20.
    """

    LEFT, RIGHT = 2, 3

    def __init__(self, delay: int = 20, render_mode: str | None = None) -> None:
        self.delay, self.render_mode = delay, render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (5,), np.float32)
        self.action_space = spaces.Discrete(4)
        self.cue = 0
        self.place = 0
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Stand at the corridor's beginning and see which side is right."""
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(2))
        self.place = self.time = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Move, or turn."""
        self.time += 1
        end = self.delay + 1
        if self.place == end and action in (self.LEFT, self.RIGHT):
            right = int(action) - self.LEFT == self.cue
            return self._observe(), 1.0 if right else -0.1, True, False, {"log_right": float(right)}
        if action in (0, 1):
            self.place = min(end, max(0, self.place + (1 if action == 0 else -1)))
        return self._observe(), -0.1 / end, False, self.time >= 4 * (end + 1), {}

    def get_state(self) -> Mapping[str, Any]:
        """The cue, the place, the time and the random generator."""
        return {"cue": self.cue, "place": self.place, "time": self.time, "rng": rng_state(self)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        self.cue, self.place, self.time = int(state["cue"]), int(state["place"]), int(state["time"])
        set_rng_state(self, state["rng"])

    def render(self) -> Any:
        """The observation as a strip of grey squares ``(16, 80, 3)``, with ``render_mode="rgb_array"``."""
        return strip(self._observe()) if self.render_mode == "rgb_array" else None

    def _observe(self) -> Observation:
        observation = np.zeros(5, np.float32)
        if self.time == 0:
            observation[self.cue] = 1.0
        fork = self.place == self.delay + 1
        observation[2:] = (not fork, fork, self.place / (self.delay + 1))
        return observation


class Hold(gymnasium.Env[np.int64, np.int64]):
    """A cue is shown once; from then on, each step wants the action that it named, and nothing more is shown.

    Observation: 0 for nothing, ``i + 1`` for the cue ``i``, on the first step only. Actions: one for each cue. Each
    step pays 1 for the right action and 0 for another; the episode always terminates after ``delay + 2`` steps. Unlike
    ``cue-N`` it pays for remembering a little, too, so it is learnt in a fraction of the steps.

    Mean return: ``delay + 2`` at best. A policy without memory is right while it sees the cue, then by chance:
    ``1 + (delay + 1) / cues``. A random policy: ``(delay + 2) / cues``. At the defaults 22, 11.5 and 11. Whether the
    last action, ``delay + 1`` steps after the cue, was right is reported as ``log_right``.
    """

    def __init__(self, delay: int = 20, cues: int = 2, render_mode: str | None = None) -> None:
        self.delay, self.cues, self.render_mode = delay, cues, render_mode
        self.observation_space = spaces.Discrete(cues + 1)
        self.action_space = spaces.Discrete(cues)
        self.cue = 0
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Show a cue, drawn uniformly."""
        super().reset(seed=seed)
        self.cue = int(self.np_random.integers(self.cues))
        self.time = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.int64, SupportsFloat, bool, bool, dict[str, Any]]:
        """Name the cue."""
        right = float(int(action) == self.cue)
        self.time += 1
        over = self.time == self.delay + 2
        return self._observe(), right, over, False, {"log_right": right} if over else {}

    def get_state(self) -> Mapping[str, Any]:
        """The cue, the time and the random generator."""
        return {"cue": self.cue, "time": self.time, "rng": rng_state(self)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        self.cue, self.time = int(state["cue"]), int(state["time"])
        set_rng_state(self, state["rng"])

    def render(self) -> Any:
        """The observation as a strip of grey squares ``(16, 16 * cues, 3)``, with ``render_mode="rgb_array"``."""
        shown = np.array([self.time == 0 and i == self.cue for i in range(self.cues)], np.float32)
        return strip(shown) if self.render_mode == "rgb_array" else None

    def _observe(self) -> np.int64:
        return np.int64(self.cue + 1 if self.time == 0 else 0)


def strip(values: Observation, side: int = 16) -> NDArray[np.uint8]:
    """Numbers from 0 to 1 as a row of grey squares ``(side, side * len(values), 3)``."""
    row = np.repeat((np.clip(values, 0, 1) * 255).astype(np.uint8), side)
    return np.broadcast_to(row[None, :, None], (side, len(row), 3)).copy()


class MemorySuite:
    """``cue-N``, ``tmaze-N`` and ``hold-N`` for any delay ``N``; the option ``delay`` replaces the number."""

    name = "memory"
    description = "cues that must be remembered for N steps: cue-N, tmaze-N, hold-N for any N"
    requirement = NOTHING

    def tasks(self) -> Sequence[str]:
        """The usual delays; any other works too."""
        return [f"{kind}-{delay}" for kind in ("cue", "tmaze", "hold") for delay in DELAYS]

    def make(
        self,
        task: str,
        *,
        delay: int | None = None,
        cues: int | None = None,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build one task; ``cues``: how many, 4 if not given in ``cue-N``, 2 in ``hold-N``, always 2 in mazes."""
        match = re.fullmatch(r"(cue|tmaze|hold)-(\d+)", task)
        if match is None:
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join(["delay", "cues", "render_mode", *GENERIC])
            raise InvalidOption(f"memory/{task} takes no option {min(unknown)!r}: there are {choices}")
        delay = int(match[2]) if delay is None else delay
        if delay < 1:
            raise InvalidOption(f"memory/{task} needs a delay of at least 1 step, not {delay}")
        if match[1] == "tmaze":
            if cues is not None:
                raise InvalidOption(f"memory/{task} has two cues; the option cues belongs to cue-N and hold-N")
            return TMaze(delay, render_mode)
        hold = match[1] == "hold"
        cues = (2 if hold else 4) if cues is None else cues
        if cues < 2:
            raise InvalidOption(f"memory/{task} needs at least 2 cues, not {cues}")
        return Hold(delay, cues, render_mode) if hold else Cue(delay, cues, render_mode)


SUITE = MemorySuite()

"""ProcGen (Cobbe and others, 2019): 16 generated games: ``procgen/coinrun``.

Its last release (0.10.7, of 2022) has wheels up to Python 3.10 only, so that on the Pythons that Oneiros supports it
has to be built from source. Where an importable ``procgen`` is there, this suite uses it; it has been tried against an
imitation of ProcGen's documented interface only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.options import GENERIC, AnyEnv

Pixels = NDArray[np.uint8]

GAMES = (
    *("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot"),
    *("heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot"),
)
DIFFICULTIES = ("easy", "hard")


class Generated(gymnasium.Env[Pixels, np.int64]):
    """One game: 15 actions, images ``(64, 64, 3)``; unlimited levels, as in the DreamerV3 paper, unless chosen.

    ProcGen resets by itself and does not show the last observation of an episode; the one before is shown again in its
    place. Each episode of a game ends by termination.
    """

    def __init__(self, games: Any) -> None:
        self._games = games
        self._seen: Pixels | None = None
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = spaces.Discrete(15)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Pixels, dict[str, Any]]:
        """Show the level that is next; which levels come is decided when the game is made."""
        super().reset(seed=seed)
        _, observation, _ = self._games.observe()
        self._seen = np.array(observation["rgb"][0])
        return self._seen, {}

    def step(self, action: np.int64) -> tuple[Pixels, SupportsFloat, bool, bool, dict[str, Any]]:
        """Advance one step."""
        self._games.act(np.array([action], np.int32))
        reward, observation, first = self._games.observe()
        assert self._seen is not None
        if not first[0]:
            self._seen = np.array(observation["rgb"][0])
        return self._seen, float(reward[0]), bool(first[0]), False, {}

    def close(self) -> None:
        """Free the game."""
        self._games.close()


class ProcGenSuite:
    """The 16 games."""

    name = "procgen"
    description = "16 generated games, from images; needs ProcGen built from source for Python 3.11 on"
    requirement = Requirement(
        "building https://github.com/openai/procgen from source (PyPI has no wheel for Python 3.11 on)", ("procgen",)
    )

    def tasks(self) -> Sequence[str]:
        """All of them."""
        return GAMES

    def make(
        self,
        task: str,
        *,
        difficulty: str = "hard",
        levels: int = 0,
        first_level: int = 0,
        level_seed: int | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build one game; ``levels`` limits how many there are (0: no limit), counted from ``first_level``."""
        if task not in GAMES:
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join(["difficulty", "levels", "first_level", "level_seed", *GENERIC])
            raise InvalidOption(f"procgen/{task} takes no option {min(unknown)!r}: there are {choices}")
        if difficulty not in DIFFICULTIES:
            raise InvalidOption(f"procgen/{task} has the difficulties {' and '.join(DIFFICULTIES)}, not {difficulty!r}")
        from procgen import ProcgenGym3Env

        options = {} if level_seed is None else {"rand_seed": level_seed}
        games = ProcgenGym3Env(
            num=1, env_name=task, distribution_mode=difficulty, num_levels=levels, start_level=first_level, **options
        )
        return Generated(games)


SUITE = ProcGenSuite()

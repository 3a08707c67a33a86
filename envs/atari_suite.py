"""Atari 2600 games with the DreamerV3 paper's preprocessing: ``atari/pong`` and ``atari100k/pong``.

``ALE/Pong-v5`` and the like remain Gymnasium's, with the Arcade Learning Environment's own settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, MissingDependency, Requirement, UnknownEnvironment
from oneiros.envs.options import AnyEnv
from oneiros.envs.snapshot import rng_state, set_rng_state
from PIL import Image

Pixels = NDArray[np.uint8]

GAMES = (
    "alien amidar assault asterix asteroids atlantis bank_heist battle_zone beam_rider berzerk bowling boxing breakout"
    " centipede chopper_command crazy_climber defender demon_attack double_dunk enduro fishing_derby freeway frostbite"
    " gopher gravitar hero ice_hockey jamesbond kangaroo krull kung_fu_master montezuma_revenge ms_pacman"
    " name_this_game phoenix pitfall pong private_eye qbert riverraid road_runner robotank seaquest skiing solaris"
    " space_invaders star_gunner surround tennis time_pilot tutankham up_n_down venture video_pinball wizard_of_wor"
    " yars_revenge zaxxon"
)
"""The benchmark's 57 games."""
GAMES_100K = (
    "alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command crazy_climber demon_attack"
    " freeway frostbite gopher hero jamesbond kangaroo krull kung_fu_master ms_pacman pong private_eye qbert"
    " road_runner seaquest up_n_down"
)
"""The 26 games of Atari100k."""

NOOP = 0
LONGEST_FRAMES = 108_000
"""Half an hour of play, after which an episode is truncated."""
LIVES = ("unused", "terminate")


@dataclass(frozen=True)
class Preprocessing:
    """How a game is shown and played."""

    size: tuple[int, int]
    gray: bool
    sticky: bool
    """Whether the console repeats the last action, with a probability of 0.25 in each frame."""
    full_actions: bool
    """Whether there are all 18 actions of the console, or only those that the game uses."""
    repeat: int = 4
    """Frames an action lasts; the image is the brighter of the last two, as some games draw objects in turns."""
    noops: int = 30
    """Most frames without action at the beginning of an episode; their number is drawn uniformly."""
    lives: str = "unused"
    """``terminate``: losing a life ends the episode; the game goes on in the next."""


ATARI_SETTINGS = Preprocessing((96, 96), gray=True, sticky=True, full_actions=True)
ATARI100K_SETTINGS = Preprocessing((64, 64), gray=False, sticky=False, full_actions=False)


class Console(gymnasium.Env[Pixels, np.int64]):
    """One game. Rewards are the points, not clipped."""

    def __init__(self, rom: str, settings: Preprocessing, longest_frames: int, render_mode: str | None) -> None:
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._rom = rom
        self._settings = settings
        self._longest = longest_frames
        self._loaded = False
        self._load(seed=0)
        legal = self._ale.getLegalActionSet() if settings.full_actions else self._ale.getMinimalActionSet()
        self._actions = list(legal)
        height, width = self._ale.getScreenDims()
        self._screens = np.zeros((2, height, width, 3), np.uint8)
        self._frames = 0
        self._lives = 0
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // settings.repeat}
        self.observation_space = spaces.Box(0, 255, (*settings.size, 1 if settings.gray else 3), np.uint8)
        self.action_space = spaces.Discrete(len(self._actions))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Pixels, dict[str, Any]]:
        """Start a game, or go on with it after a lost life where that ends episodes."""
        super().reset(seed=seed)
        if seed is not None or not self._loaded:
            self._load(int(self.np_random.integers(2**31 - 1)))
            self._loaded = True
        lost_a_life = self._settings.lives == "terminate" and 0 < self._ale.lives() < self._lives
        if seed is not None or not lost_a_life:
            self._ale.reset_game()
            for _ in range(int(self.np_random.integers(self._settings.noops + 1))):
                self._ale.act(NOOP)
                if self._ale.game_over():
                    self._ale.reset_game()
        self._frames = 0
        self._lives = self._ale.lives()
        self._ale.getScreenRGB(self._screens[0])
        self._screens[1] = self._screens[0]
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Pixels, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold one action for some frames."""
        button, repeat = self._actions[int(action)], self._settings.repeat
        points = 0.0
        terminated = truncated = False
        for frame in range(repeat):
            points += self._ale.act(button)
            self._frames += 1
            if frame >= repeat - 2:
                self._ale.getScreenRGB(self._screens[frame % 2])
            terminated = self._ale.game_over()
            truncated = 0 < self._longest <= self._frames
            if self._settings.lives == "terminate" and self._ale.lives() < self._lives:
                terminated = True
            if terminated or truncated:
                break
        return self._observe(), points, terminated, truncated, {}

    def render(self) -> Any:
        """The console's own picture, with ``render_mode="rgb_array"``."""
        return self._brighter() if self.render_mode == "rgb_array" else None

    def get_state(self) -> Mapping[str, Any]:
        """The whole console, its random generator and ours, and how far the episode is."""
        return {
            "console": self._ale.cloneState(include_rng=True).serialize(),
            "screens": self._screens.copy(),
            "frames": self._frames,
            "lives": self._lives,
            "rng": rng_state(self),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        import ale_py

        self._ale.restoreState(ale_py.ALEState(state["console"]))
        self._screens[:] = state["screens"]
        self._frames, self._lives = int(state["frames"]), int(state["lives"])
        self._loaded = True
        set_rng_state(self, state["rng"])

    def _load(self, seed: int) -> None:
        from ale_py import roms

        path = roms.get_rom_path(self._rom)
        if path is None or not path.exists():
            raise MissingDependency(f"atari/{self._rom} needs the game's ROM, which pip install ale-py brings along")
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", 0.25 if self._settings.sticky else 0.0)
        self._ale.loadROM(path)

    def _observe(self) -> Pixels:
        picture = Image.fromarray(self._brighter())
        if self._settings.gray:
            picture = picture.convert("L")
        image = np.asarray(picture.resize(self._settings.size[::-1], Image.Resampling.BILINEAR))
        return image[..., None] if self._settings.gray else image

    def _brighter(self) -> Pixels:
        brighter: Pixels = np.maximum(self._screens[0], self._screens[1])
        return brighter


class AtariSuite:
    """The games of one benchmark, with its settings; each of them may be overridden."""

    requirement = Requirement("pip install 'oneiros[atari]'", ("ale_py",))
    handles = frozenset({"action_repeat", "size", "grayscale", "time_limit"})

    def __init__(self, name: str, description: str, games: str, settings: Preprocessing) -> None:
        self.name = name
        self.description = description
        self._benchmark = games.split()
        self._settings = settings

    def tasks(self) -> Sequence[str]:
        """The benchmark's games; any other that ale-py ships works too."""
        return self._benchmark

    def make(
        self,
        task: str,
        *,
        size: Any = None,
        grayscale: bool | None = None,
        action_repeat: int | None = None,
        time_limit: int | None = None,
        sticky: bool | None = None,
        full_actions: bool | None = None,
        noops: int | None = None,
        lives: str = "unused",
        render_mode: str | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build one game; ``action_repeat`` is how many frames an action lasts."""
        who = f"{self.name}/{task}"
        if unknown:
            choices = ", ".join(["sticky", "full_actions", "noops", "lives", "render_mode", *generic.GENERIC])
            raise InvalidOption(f"{who} takes no option {min(unknown)!r}: there are {choices}")
        if task not in self._benchmark and task not in self._shipped:
            raise UnknownEnvironment()
        if lives not in LIVES:
            raise InvalidOption(f"{who} has for lives {' and '.join(LIVES)}, not {lives!r}")
        chosen = {
            "size": generic.frame_size(size),
            "gray": grayscale,
            "repeat": generic.count("action_repeat", action_repeat),
            "sticky": sticky,
            "full_actions": full_actions,
            "noops": noops,
        }
        given: Mapping[str, Any] = {key: value for key, value in chosen.items() if value is not None}
        settings = Preprocessing(**{**vars(self._settings), **given, "lives": lives})
        longest = LONGEST_FRAMES if time_limit is None else 0
        return generic.apply(Console(task, settings, longest, render_mode), who, {"time_limit": time_limit})

    @cached_property
    def _shipped(self) -> list[str]:
        from ale_py import roms

        return list(roms.get_all_rom_ids())


SUITE = AtariSuite("atari", "57 Atari games, 96x96 grey, sticky actions, all 18 actions", GAMES, ATARI_SETTINGS)
SUITE_100K = AtariSuite(
    "atari100k",
    "26 Atari games, 64x64 colour, not sticky, only each game's own actions",
    GAMES_100K,
    ATARI100K_SETTINGS,
)

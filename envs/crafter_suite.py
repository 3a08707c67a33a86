"""Crafter (Hafner, 2021): an open world to survive in, with 22 achievements: ``crafter/reward``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.options import AnyEnv

Image = NDArray[np.uint8]

ACHIEVEMENTS = (
    *("collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling", "collect_stone"),
    *("collect_wood", "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant", "make_iron_pickaxe"),
    *("make_iron_sword", "make_stone_pickaxe", "make_stone_sword", "make_wood_pickaxe", "make_wood_sword"),
    *("place_furnace", "place_plant", "place_stone", "place_table", "wake_up"),
)
LOG = "log_achievement_"
LONGEST = 10_000
"""Steps after which the benchmark truncates an episode."""


def score(success_rates: Mapping[str, float] | Sequence[float]) -> float:
    """The Crafter score, in percent, of the shares (0 to 1) of episodes that unlocked each of the 22 achievements.

    It is the geometric mean of the success rates in percent, each increased by one for the sake of those that are
    zero: ``exp(mean(ln(1 + s_i))) - 1``. A mapping may have other keys too; an achievement that it lacks counts as 0.
    Raises ``ValueError`` for a sequence of another length or rates outside 0 to 1.
    """
    if isinstance(success_rates, Mapping):
        success_rates = [success_rates.get(name, 0.0) for name in ACHIEVEMENTS]
    rates = np.asarray(success_rates, np.float64)
    if rates.shape != (len(ACHIEVEMENTS),):
        raise ValueError(f"the Crafter score is of {len(ACHIEVEMENTS)} success rates, not {rates.shape}")
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("success rates lie between 0 and 1")
    return float(np.expm1(np.log1p(100.0 * rates).mean()))


class Survival(gymnasium.Env[Image, np.int64]):
    """Crafter behind Gymnasium's interface: 17 actions, images ``(size, size, 3)``.

    An episode terminates when the player dies and is truncated after ``length`` steps (0: never). Its last info holds,
    under ``log_achievement_<name>``, 1 for each achievement that was unlocked in it and 0 for the others; means of
    these over episodes are the success rates that ``score`` takes.
    """

    def __init__(self, size: tuple[int, int], reward: bool, length: int, render_mode: str | None) -> None:
        import crafter  # only where the suite's requirement is there

        # Crafter's own order is width, height.
        self._env = crafter.Env(size=size[::-1], reward=reward, length=length, seed=0)
        _remember_order(self._env._world)
        self._seeded = False
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)
        self.action_space = spaces.Discrete(len(self._env.action_names))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        """Generate a world; worlds follow from the last seed that was given and how many came since."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._env._seed = int(self.np_random.integers(2**31 - 1))
            self._env._episode = 0
            self._seeded = True
        return self._env.reset(), {}

    def step(self, action: np.int64) -> tuple[Image, SupportsFloat, bool, bool, dict[str, Any]]:
        """Act for one step."""
        image, reward, done, info = self._env.step(int(action))
        terminated = done and info["discount"] == 0
        unlocked = {LOG + name: float(count > 0) for name, count in info["achievements"].items()} if done else {}
        return image, reward, terminated, done and not terminated, unlocked

    def render(self) -> Any:
        """A larger picture of what the player sees, with ``render_mode="rgb_array"``."""
        return self._env.render((512, 512)) if self.render_mode == "rgb_array" else None


class _Ordered(dict[Any, None]):
    """A set that is iterated in the order in which it was filled."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


def _remember_order(world: Any) -> None:
    """Make worlds repeat under a seed: Crafter draws creatures out of sets, whose order is that of memory addresses."""
    reset = world.reset

    def ordered_reset(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = defaultdict(_Ordered)

    world.reset = ordered_reset


class CrafterSuite:
    """``reward`` pays 1 for each achievement's first time in an episode and 0.1 for health; ``noreward`` pays 0."""

    name = "crafter"
    description = "Crafter: survive and unlock 22 achievements, from images"
    requirement = Requirement("pip install 'oneiros[crafter]'", ("crafter",))
    handles = frozenset({"action_repeat", "size", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """With and without reward."""
        return ["reward", "noreward"]

    def make(
        self,
        task: str,
        *,
        size: Any = (64, 64),
        action_repeat: int | None = None,
        time_limit: int | None = None,
        render_mode: str | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Build the world; ``time_limit`` replaces the benchmark's 10,000 steps."""
        if task not in self.tasks():
            raise UnknownEnvironment()
        if unknown:
            choices = ", ".join(["render_mode", *generic.GENERIC])
            raise InvalidOption(f"crafter/{task} takes no option {min(unknown)!r}: there are {choices}")
        sides = generic.frame_size(size) or (64, 64)
        if min(sides) < 9:
            raise InvalidOption(f"crafter/{task} shows 9 x 9 places: its size is at least 9, not {min(sides)}")
        env: AnyEnv = Survival(sides, task == "reward", LONGEST if time_limit is None else 0, render_mode)
        return generic.apply(env, f"crafter/{task}", {"action_repeat": action_repeat, "time_limit": time_limit})


SUITE = CrafterSuite()

"""MiniGrid and BabyAI, from what the agent sees as images: ``minigrid/Empty-5x5-v0``, ``minigrid/BabyAI-GoToObj-v0``.

The chosen wrapper is MiniGrid's ``RGBImgPartialObsWrapper``: the 7 x 7 cells before the agent, drawn with 8 pixels a
cell (56 x 56 x 3). The direction is kept as a discrete value, and so is the mission, as numbers of its words, where it
says something that the picture does not. ``view=full`` chooses ``RGBImgObsWrapper``, the whole grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.options import GENERIC, AnyEnv

PREFIXES = ("MiniGrid-", "BabyAI-")
VIEWS = ("partial", "full")
CELL = 8

WORDS = (
    *(",", "a", "after", "and", "at", "avoid", "ball", "behind", "blue", "box", "door", "end", "fetch"),
    *("find", "from", "front", "get", "go", "goal", "green", "grey", "hallway", "in", "key", "lava"),
    *("left", "matching", "must", "near", "next", "object", "of", "on", "open", "opening", "pick"),
    *("purple", "put", "reach", "red", "right", "room", "rooms", "square", "the", "then", "to", "traverse"),
    *("unlock", "up", "use", "yellow", "you", "your"),
)
"""The words of all missions of both families; number 0 is no word, and the last number any other word."""
LONGEST_MISSION = 40


class Mission(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Replaces the mission's text by numbers of its words, or leaves it out."""

    def __init__(self, env: AnyEnv, keep: bool) -> None:
        super().__init__(env)
        inner = env.observation_space
        assert isinstance(inner, spaces.Dict)
        self._keep = keep
        self._numbers = {word: number for number, word in enumerate(WORDS, start=1)}
        entries = {key: space for key, space in inner.spaces.items() if key != "mission"}
        if keep:
            entries["mission"] = spaces.MultiDiscrete([len(WORDS) + 2] * LONGEST_MISSION)
        self.observation_space = spaces.Dict(entries)

    def observation(self, observation: Any) -> Any:
        """The observation with the mission as ``(40,)`` numbers, 0 after its end."""
        entries = {key: value for key, value in observation.items() if key != "mission"}
        if self._keep:
            numbers = np.zeros(LONGEST_MISSION, np.int64)
            for place, word in enumerate(observation["mission"].replace(",", " , ").split()[:LONGEST_MISSION]):
                numbers[place] = self._numbers.get(word, len(WORDS) + 1)
            entries["mission"] = numbers
        return entries


class GridSuite:
    """Every id that MiniGrid registers, with or without its ``MiniGrid-``."""

    name = "minigrid"
    description = "MiniGrid and BabyAI, as images of what the agent sees"
    requirement = Requirement("pip install 'oneiros[minigrid]'", ("minigrid",))

    def tasks(self) -> Sequence[str]:
        """Their names as registered; none where MiniGrid is not installed."""
        if self.requirement.missing():
            return []
        return sorted(id.removeprefix("MiniGrid-") for id in _registered())

    def make(
        self,
        task: str,
        *,
        view: str = "partial",
        mission: bool | None = None,
        render_mode: str | None = None,
        **options: Any,
    ) -> AnyEnv:
        """Build one task; ``mission`` keeps or leaves out the mission against the choice made for the task."""
        env_id = task if task.startswith(PREFIXES) else f"MiniGrid-{task}"
        if env_id not in _registered():
            raise UnknownEnvironment()
        if view not in VIEWS:
            raise InvalidOption(f"minigrid/{task} has the views {' and '.join(VIEWS)}, not {view!r}")
        from minigrid import wrappers

        try:
            env: AnyEnv = gymnasium.make(env_id, render_mode=render_mode, disable_env_checker=True, **options)
        except TypeError as error:
            choices = ", ".join(["view", "mission", "render_mode", *GENERIC])
            raise InvalidOption(f"minigrid/{task} takes no such option ({error}): there are {choices}") from error
        if mission is None:
            mission = _mission_matters(env_id, env)
        draw = wrappers.RGBImgObsWrapper if view == "full" else wrappers.RGBImgPartialObsWrapper
        return Mission(draw(env, tile_size=CELL), mission)


def _registered() -> list[str]:
    import minigrid

    gymnasium.register_envs(minigrid)
    return [env_id for env_id in gymnasium.registry if env_id.startswith(PREFIXES)]


def _mission_matters(env_id: str, env: AnyEnv) -> bool:
    """BabyAI's missions are instructions; MiniGrid's are, where the task leaves places in the sentence to fill."""
    text = env.observation_space["mission"]  # type: ignore[index]
    return env_id.startswith("BabyAI-") or getattr(text, "ordered_placeholders", None) is not None


SUITE = GridSuite()

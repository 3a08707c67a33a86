"""Gymnasium environments over MineRL's: the diamond protocol, and MineRL's stock tasks with the spaces they have."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import EPISODE_FAULT
from oneiros.envs.external.trees import unflatten
from oneiros.envs.external.wire import Arrays
from oneiros.envs.minecraft.actions import COMMANDS, KEYS, NAMES, TURN_DEGREES, Controls, Input
from oneiros.envs.minecraft.observation import Observation, Observer, observation_space
from oneiros.envs.minecraft.progress import LENGTH, Progress
from oneiros.envs.minerl.items import Tally, equipment, equipped_place, kinds, milestone_places
from oneiros.envs.minerl.process import Child, ChildFailed, Keeper, Outcome
from oneiros.envs.space_json import space_from_json

INVENTORY = "inventory"
EQUIPPED = "equipped_items/mainhand/type"
STATS = {"life": 20.0, "food": 20.0, "air": 300.0}
COMMAND_KEYS = {
    "place": "place",
    "craft": "craft",
    "nearby_craft": "nearbyCraft",
    "equip": "equip",
    "nearby_smelt": "nearbySmelt",
}


def minerl_action(pressed: Input) -> dict[str, Any]:
    """What MineRL's action has for one step; entries that it lacks do nothing."""
    action: dict[str, Any] = {key: 1 for bit, key in enumerate(KEYS) if pressed.keys & (1 << bit)}
    if pressed.turn or pressed.tilt:
        # Pitch, then yaw; both count up downwards and to the right.
        action["camera"] = [pressed.tilt * TURN_DEGREES, pressed.turn * TURN_DEGREES]
    verb, item = COMMANDS[pressed.command]
    if verb:
        action[COMMAND_KEYS[verb]] = item
    return action


class _Hosted(gymnasium.Env[Any, Any]):
    """What both have in common: a child, and world seeds that follow from Gymnasium's."""

    keeper: Keeper
    render_mode: str | None
    _image: Any = None

    def _begin(self, seed: int | None) -> Outcome:
        super().reset(seed=seed)
        outcome = self.keeper.reset(int(self.np_random.integers(2**31 - 1)))
        self._over = False
        return outcome

    def _act(self, action: Any) -> Outcome | dict[str, Any]:
        """What came of it, or the info of an episode that its game did not survive."""
        if getattr(self, "_over", True):
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset")
        try:
            return self.keeper.step(action)
        except ChildFailed as error:
            self._over = True
            return {EPISODE_FAULT: str(error)}

    def render(self) -> Any:
        """The last picture, with ``render_mode="rgb_array"``."""
        return self._image if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the game and MineRL's process."""
        self.keeper.close()

    def __del__(self) -> None:
        # One that is dropped without being closed would leave its game running as long as this process does.
        with contextlib.suppress(Exception):
            self.close()


class Diamond(_Hosted):
    """Minecraft's survival under the diamond protocol; observations are ``oneiros.envs.minecraft.observation``'s.

    ``equipped`` ``(393,)`` has the 391 kinds of items, then nothing, then what is none of them. An episode terminates
    when the player dies. Its last info holds ``log_milestone_<name>``, 1 for each milestone that was reached in it. A
    game that hangs or ends is killed and replaced: the episode is truncated with the observation before, and its last
    info has ``episode_fault``, what happened.
    """

    def __init__(
        self,
        python: str | Path,
        *,
        size: tuple[int, int] = (64, 64),
        break_speed: float = 100.0,
        controls: Controls,
        length: int = LENGTH,
        render_mode: str | None = None,
        port: int | None = None,
    ) -> None:
        """``port`` is that of a Minecraft with MineRL's mod that runs already; otherwise each child starts one."""
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.observation_space = observation_space(*size, len(kinds()), len(equipment()))
        self.action_space = spaces.Discrete(len(NAMES))
        self.controls = controls
        height, width = size
        task = {"height": height, "width": width, "break_speed": break_speed}
        self.keeper = Keeper(python, {"diamond": task, "port": port, "packed": [INVENTORY]})
        self._known: Child | None = None
        self._length = length
        self._progress = Progress()
        self._observer = Observer(len(kinds()), len(equipment()))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin in a new world, whose seed follows from the last that was given and how many worlds came since."""
        outcome = self._begin(seed)
        self.controls.reset()
        self._progress.reset()
        self._observer.reset()
        self._steps = 0
        self._observation = self._observe(outcome.arrays)
        return self._observation, {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one step, a twentieth of a second of the game."""
        outcome = self._act(minerl_action(self.controls.press(int(action))))
        if isinstance(outcome, dict):
            return self._observation, 0.0, False, True, {**self._progress.summary(), **outcome}
        self._steps += 1
        observation = self._observation = self._observe(outcome.arrays)
        held = observation["inventory"][milestone_places()] > 0
        reward = self._progress.pay(held, float(observation["health"][0]))
        truncated = not outcome.done and self._steps >= self._length
        self._over = outcome.done or truncated
        return observation, reward, outcome.done, truncated, self._progress.summary() if self._over else {}

    def _observe(self, arrays: Arrays) -> Observation:
        child = self.keeper.child
        assert child is not None
        if child is not self._known:
            parts = child.observation_space["spaces"]
            self._known, self._tally = child, Tally(parts[INVENTORY]["values"])
            self._equipment = parts["equipped_items"]["spaces"]["mainhand"]["spaces"]["type"]["values"]
        health, food, air = (float(arrays[f"life_stats/{name}"][0]) / most for name, most in STATS.items())
        self._image = arrays["pov"]
        equipped = equipped_place(self._equipment[int(arrays[EQUIPPED])])
        return self._observer.observe(arrays["pov"], self._tally.count(arrays[INVENTORY]), equipped, health, food, air)


class Stock(_Hosted):
    """One of MineRL's own tasks: its Dict observations and actions (Enum as Discrete), its reward, its limit of time.

    The limit, which MineRL's API does not tell from the task's end, truncates. A game that hangs or ends is killed and
    replaced: the episode is truncated with the observation before.
    """

    def __init__(
        self, python: str | Path, wanted: dict[str, Any], length: int | None, render_mode: str | None = None
    ) -> None:
        """``wanted`` is what the child is asked to make; ``length`` the steps after which the game itself ends."""
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        # Only the task itself knows its spaces.
        child = Child(python, wanted)
        self.keeper = Keeper(python, wanted, child)
        self.observation_space = space_from_json(child.observation_space)
        self.action_space = space_from_json(child.action_space)
        self._length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin in a new world, whose seed follows from the last that was given and how many worlds came since."""
        outcome = self._begin(seed)
        self._steps = 0
        self._observation = self._observe(outcome)
        return self._observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act for one step, a twentieth of a second of the game."""
        outcome = self._act(_plain(action))
        if isinstance(outcome, dict):
            return self._observation, 0.0, False, True, outcome
        self._steps += 1
        self._observation = self._observe(outcome)
        # The game's own clock ends the mission with the same step.
        limited = outcome.limited or (self._length is not None and self._steps >= self._length)
        self._over = outcome.done
        return self._observation, outcome.reward, outcome.done and not limited, outcome.done and limited, {}

    def _observe(self, outcome: Outcome) -> Any:
        self._image = outcome.arrays.get("pov")
        return unflatten(self.observation_space, outcome.arrays)


def _plain(action: Any) -> Any:
    """The action as JSON knows it."""
    if isinstance(action, dict):
        return {key: _plain(value) for key, value in action.items()}
    return np.asarray(action).tolist()

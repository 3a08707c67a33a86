"""What people did in MineRL's tasks (its data, versions 3 and 4), in the terms of the diamond protocol.

A person does many things in a twentieth of a second, the protocol's agent one of 25. One recorded step becomes one
step, with the first of these that applies:

1. A command that the protocol has (craft, nearbyCraft, nearbySmelt, place or equip, with an item that it knows).
2. A turn: the camera's movement is added up, and as soon as 7.5 degrees or more of it are due, the larger of pitch and
   yaw turns by 15, which are taken off. So a turn comes a little late, and none is lost.
3. attack, then jump (which goes forward, too), forward, back, left, right; sneaking and sprinting are left out.
4. noop.

Observations are what was recorded. The data say nothing of health, hunger and breath: these are 1. Inventories have the
18 items of the data; a diamond is counted from the step on that paid MineRL's 1,024 for one. Rewards are the
protocol's, for the first time that each milestone is held. No episode terminates: the data do not say who died.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.envs.minecraft.actions import COMMANDS, NAMES, TURN_DEGREES
from oneiros.envs.minecraft.observation import STATS, Observation
from oneiros.envs.minecraft.progress import Progress
from oneiros.envs.minerl.items import NONE, Tally, equipment, equipped_place, kinds, milestone_places

DIAMOND_REWARD = 1024.0
COMMAND_KEYS = {"craft": "craft", "nearbyCraft": "nearby_craft", "nearbySmelt": "nearby_smelt"}
COMMAND_KEYS |= {"place": "place", "equip": "equip"}
HELD = ("attack", "jump", "forward", "back", "left", "right")

Column = NDArray[Any]
# Commands are the last of the actions, in their own order.
_COMMAND_ACTIONS = {command: len(NAMES) - len(COMMANDS) + number for number, command in enumerate(COMMANDS) if number}


class Unreadable(ValueError):
    """A recording lacks a column, or its columns are not equally long."""


def columns(recorded: Mapping[str, Column]) -> dict[str, Column]:
    """Entries of a ``rendered.npz`` by their paths (``observation/inventory/log``), whichever separator they have."""
    return {name.replace("$", "/").replace(".", "/"): value for name, value in recorded.items()}


def convert(
    recorded: Mapping[str, Column], image: NDArray[np.uint8]
) -> tuple[Observation, NDArray[np.int64], NDArray[np.float32]]:
    """Observations ``(T + 1, ...)``, actions ``(T,)`` and rewards ``(T,)`` of a recording and its pictures ``(T + 1,
    H, W, 3)``; raises ``Unreadable``."""
    reward = np.asarray(_column(recorded, "reward"), np.float32)
    steps = len(reward)
    _require(recorded, steps)
    if len(image) != steps + 1:
        raise Unreadable(f"{steps} steps have {steps + 1} observations, not {len(image)} pictures")
    observations = _observations(recorded, image, reward)
    progress = Progress()
    held = observations["inventory"][:, milestone_places()] > 0
    paid = np.array([progress.pay(row, 1.0) for row in held[1:]], np.float32)
    return observations, choose_actions(recorded, steps), paid


def choose_actions(recorded: Mapping[str, Column], steps: int) -> NDArray[np.int64]:
    """The protocol's action of each recorded step, by the rules above."""
    camera = np.asarray(_column(recorded, "action/camera"), np.float64).reshape(steps, 2)
    commands = [_command(recorded, step) for step in range(steps)]
    keys = {name: np.asarray(_column(recorded, f"action/{name}")) > 0 for name in HELD}
    actions = np.zeros(steps, np.int64)
    due = np.zeros(2)
    for step in range(steps):
        due += camera[step]
        if (command := commands[step]) is not None:
            actions[step] = command
        elif np.abs(due).max() >= TURN_DEGREES / 2:
            axis = int(np.abs(due).argmax())
            forth = bool(due[axis] > 0)
            due[axis] -= TURN_DEGREES if forth else -TURN_DEGREES
            name = (("turn_up", "turn_down"), ("turn_left", "turn_right"))[axis][forth]
            actions[step] = NAMES.index(name)
        else:
            actions[step] = NAMES.index(next((name for name in HELD if keys[name][step]), "noop"))
    return actions


def _command(recorded: Mapping[str, Column], step: int) -> int | None:
    for key, verb in COMMAND_KEYS.items():
        column = recorded.get(f"action/{key}")
        if column is not None and (action := _COMMAND_ACTIONS.get((verb, str(column[step])))) is not None:
            return action
    return None


def _observations(recorded: Mapping[str, Column], image: NDArray[np.uint8], reward: NDArray[np.float32]) -> Observation:
    rows = len(image)
    prefix = "observation/inventory/"
    items = [name.removeprefix(prefix) for name in recorded if name.startswith(prefix)]
    counts = np.zeros((rows, len(items)), np.int64)
    for number, item in enumerate(items):
        counts[:, number] = recorded[prefix + item]
    inventory = Tally(items).count(counts)
    if "diamond" not in items:
        found = np.maximum.accumulate(reward >= DIAMOND_REWARD)
        inventory[1:, kinds().index("diamond")] = found
    hand = recorded.get("observation/equipped_items/mainhand/type", np.full(rows, NONE))
    equipped = np.zeros((rows, len(equipment())), np.float32)
    equipped[np.arange(rows), [equipped_place(str(name)) for name in hand]] = 1
    return {
        "image": image,
        "inventory": inventory,
        "inventory_max": np.maximum.accumulate(inventory),
        "equipped": equipped,
        **{name: np.ones((rows, 1), np.float32) for name in STATS},
    }


def _column(recorded: Mapping[str, Column], name: str) -> Column:
    if name not in recorded:
        raise Unreadable(f"there is no {name!r}, but {', '.join(sorted(recorded)) or 'nothing'}")
    return recorded[name]


def _require(recorded: Mapping[str, Column], steps: int) -> None:
    if steps < 1:
        raise Unreadable("there is no step")
    for name, value in recorded.items():
        wanted = steps + 1 if name.startswith("observation/") else steps
        if name.startswith(("observation/", "action/")) and len(value) != wanted:
            raise Unreadable(f"{name!r} has {len(value)} rows, and {steps} steps need {wanted}")

"""The 25 actions of the protocol, and the keys, turns and commands that one step of a game gets for each."""

from __future__ import annotations

from dataclasses import dataclass

TURN_DEGREES = 15.0
KEYS = ("forward", "back", "left", "right", "jump", "sneak", "attack")
"""What can be held down; of number ``i`` the bit is ``1 << i``."""
FORWARD, BACK, LEFT, RIGHT, JUMP, _SNEAK, ATTACK = (1 << bit for bit in range(len(KEYS)))

COMMANDS = (
    *(("", ""), ("place", "dirt"), ("craft", "planks"), ("craft", "stick"), ("craft", "crafting_table")),
    *(("place", "crafting_table"), ("nearby_craft", "wooden_pickaxe"), ("nearby_craft", "stone_pickaxe")),
    *(("nearby_craft", "iron_pickaxe"), ("equip", "stone_pickaxe"), ("equip", "wooden_pickaxe")),
    *(("equip", "iron_pickaxe"), ("nearby_craft", "furnace"), ("place", "furnace"), ("nearby_smelt", "iron_ingot")),
)
"""What is done at once and the item that it is done with, by the number of the command; 0 is none."""


@dataclass(frozen=True)
class Action:
    """Keys held for the step, turns of 15 degrees (right and down count up), and the number of a command."""

    name: str
    keys: int = 0
    turn: int = 0
    tilt: int = 0
    command: int = 0


ACTIONS = (
    Action("noop"),
    Action("attack", keys=ATTACK),
    Action("turn_up", tilt=-1),
    Action("turn_down", tilt=1),
    Action("turn_left", turn=-1),
    Action("turn_right", turn=1),
    Action("forward", keys=FORWARD),
    Action("back", keys=BACK),
    Action("left", keys=LEFT),
    Action("right", keys=RIGHT),
    Action("jump", keys=JUMP | FORWARD),
    Action("place_dirt", command=1),
    Action("craft_planks", command=2),
    Action("craft_stick", command=3),
    Action("craft_crafting_table", command=4),
    Action("place_crafting_table", command=5),
    Action("craft_wooden_pickaxe", command=6),
    Action("craft_stone_pickaxe", command=7),
    Action("craft_iron_pickaxe", command=8),
    Action("equip_stone_pickaxe", command=9),
    Action("equip_wooden_pickaxe", command=10),
    Action("equip_iron_pickaxe", command=11),
    Action("craft_furnace", command=12),
    Action("place_furnace", command=13),
    Action("smelt_iron_ingot", command=14),
)
NAMES = tuple(action.name for action in ACTIONS)


@dataclass(frozen=True)
class Input:
    """What a game gets for one step: held keys, turns of 15 degrees, and a command's number."""

    keys: int
    turn: int
    tilt: int
    command: int


class Controls:
    """Turns actions into input: repeats attacks and jumps, and keeps the camera within its limits."""

    def __init__(self, sticky_attack: int, sticky_jump: int, pitch_limit: float) -> None:
        self.sticky_attack = sticky_attack
        self.sticky_jump = sticky_jump
        self._most_tilt = int(pitch_limit / TURN_DEGREES)
        self.reset()

    def reset(self) -> None:
        """As at the beginning of an episode: nothing repeats, the camera looks straight ahead."""
        self.tilt = 0
        self._attacks = self._jumps = 0

    def press(self, index: int) -> Input:
        """The input of one step for the action of this number."""
        action = ACTIONS[index]
        keys = action.keys
        if keys & ATTACK:
            self._attacks = self.sticky_attack
        if self._attacks > 0:
            self._attacks -= 1
            keys = (keys | ATTACK) & ~JUMP
        if keys & JUMP:
            self._jumps = self.sticky_jump
        if self._jumps > 0:
            self._jumps -= 1
            keys |= JUMP | FORWARD
        tilt = action.tilt if abs(self.tilt + action.tilt) <= self._most_tilt else 0
        self.tilt += tilt
        return Input(keys, action.turn, tilt, action.command)

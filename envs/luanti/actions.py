"""What the engine's shim and the game's ``actions.lua`` get for each of the protocol's actions.

The shim's bits of keys and the numbers of commands are those of the protocol's tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from oneiros.envs.luanti.settings import TURN_PIXELS
from oneiros.envs.minecraft import actions as protocol


@dataclass(frozen=True)
class Input:
    """What the shim and the game get for one step."""

    keys: int
    turn_x: int
    turn_y: int
    command: int


class Controls:
    """The protocol's controls, with turns in the pixels that the pointer moves."""

    def __init__(self, sticky_attack: int, sticky_jump: int, pitch_limit: float) -> None:
        self._protocol = protocol.Controls(sticky_attack, sticky_jump, pitch_limit)

    def reset(self) -> None:
        """As at the beginning of an episode: nothing repeats, the camera looks straight ahead."""
        self._protocol.reset()

    @property
    def tilt(self) -> int:
        """How far the camera looks down, in turns."""
        return self._protocol.tilt

    def press(self, index: int) -> Input:
        """The input of one step for the action of this number."""
        pressed = self._protocol.press(index)
        return Input(pressed.keys, TURN_PIXELS * pressed.turn, TURN_PIXELS * pressed.tilt, pressed.command)

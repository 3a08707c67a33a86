"""The options that all worlds of the protocol share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oneiros.envs import options as generic
from oneiros.envs.contract import InvalidOption
from oneiros.envs.minecraft.progress import LENGTH

OPTIONS = ("break_speed", "sticky_attack", "sticky_jump", "pitch_limit")
NATURAL_ATTACK = 30
"""Steps that an attack lasts where blocks break at their natural speed: as long as wood takes."""


@dataclass(frozen=True)
class Options:
    """What was chosen: pixels, multiples, steps, degrees, steps."""

    height: int
    width: int
    break_speed: float
    sticky_attack: int
    sticky_jump: int
    pitch_limit: float
    length: int


def read(
    task: str,
    most_pitch: float,
    *,
    size: Any,
    action_repeat: int | None,
    time_limit: int | None,
    break_speed: float = 100.0,
    sticky_attack: int | None = None,
    sticky_jump: int = 10,
    pitch_limit: float = 60.0,
) -> Options:
    """Check what was said of ``task``; raises ``InvalidOption``."""
    height, width = generic.frame_size(size) or (64, 64)
    if min(height, width) < 32 or max(height, width) > 1024:
        raise InvalidOption(f"{task} shows pictures of 32 to 1024 pixels a side, not {height} x {width}")
    speed = generic.number("break_speed", break_speed, 1, 1000)
    if sticky_attack is None:
        sticky_attack = 0 if speed > 1 else NATURAL_ATTACK
    # The environment itself counts to the limit, so that its last info says what was reached.
    limit = generic.count("time_limit", time_limit)
    return Options(
        height,
        width,
        speed,
        int(generic.number("sticky_attack", sticky_attack, 0, 1000)),
        int(generic.number("sticky_jump", sticky_jump, 0, 1000)),
        generic.number("pitch_limit", pitch_limit, 0, most_pitch),
        LENGTH if limit is None else limit * (generic.count("action_repeat", action_repeat) or 1),
    )

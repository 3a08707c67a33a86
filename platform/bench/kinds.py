"""The two kinds of task that every benchmark uses, so that numbers can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.platform.config.errors import unknown


@dataclass(frozen=True)
class Kind:
    """Spaces of a made-up task."""

    name: str
    observation_space: spaces.Box
    action_space: spaces.Space[Any]


KINDS = {
    "state": Kind("state", spaces.Box(-np.inf, np.inf, (24,), np.float32), spaces.Box(-1.0, 1.0, (6,), np.float32)),
    "image": Kind("image", spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Discrete(17)),
}
"""``state``: 24 numbers and 6 continuous actions; ``image``: 64x64x3 pixels and 17 discrete actions."""


def find_kind(name: str) -> Kind:
    """The kind of this name; raises ``ConfigError`` with the choices."""
    if name not in KINDS:
        raise unknown("obs", name, KINDS)
    return KINDS[name]

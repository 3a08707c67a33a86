"""Observations of the protocol: a picture, what is held, and how the player is."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Observation = dict[str, NDArray[Any]]
STATS = ("health", "hunger", "breath")


def observation_space(height: int, width: int, kinds: int, equipment: int) -> spaces.Dict:
    """``image`` ``(height, width, 3)`` uint8, all else float32.

    ``inventory`` and ``inventory_max`` ``(kinds,)``: how many of each kind of item are held, and were at most held in
    this episode. ``equipped`` ``(equipment,)``: one-hot. ``health``, ``hunger`` and ``breath`` ``(1,)``: each as a
    share of its most.
    """
    return spaces.Dict(
        {
            "image": spaces.Box(0, 255, (height, width, 3), np.uint8),
            "inventory": spaces.Box(0, np.inf, (kinds,), np.float32),
            "inventory_max": spaces.Box(0, np.inf, (kinds,), np.float32),
            "equipped": spaces.Box(0, 1, (equipment,), np.float32),
            **{name: spaces.Box(0, 1, (1,), np.float32) for name in STATS},
        }
    )


class Observer:
    """Puts observations together, and remembers the most that was held of everything."""

    def __init__(self, kinds: int, equipment: int) -> None:
        self._kinds, self._equipment = kinds, equipment
        self.reset()

    def reset(self) -> None:
        """As at the beginning of an episode: nothing was held."""
        self._most = np.zeros(self._kinds, np.float32)

    def observe(
        self, image: NDArray[np.uint8], inventory: NDArray[Any], equipped: int, health: float, food: float, air: float
    ) -> Observation:
        """``inventory`` ``(kinds,)`` counts, ``equipped`` a place; health, food and air are shares of their most."""
        held = inventory.astype(np.float32)
        np.maximum(self._most, held, out=self._most)
        one_hot = np.zeros(self._equipment, np.float32)
        one_hot[equipped] = 1
        stats = {name: share(value) for name, value in zip(STATS, (health, food, air), strict=True)}
        return {"image": image, "inventory": held, "inventory_max": self._most.copy(), "equipped": one_hot, **stats}


def share(value: float) -> NDArray[np.float32]:
    """``(1,)``: the value within 0 and 1."""
    return np.array([min(max(value, 0.0), 1.0)], np.float32)

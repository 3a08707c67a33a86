"""What an episode has reached, and what that pays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTH = 36_000
"""Steps after which an episode is truncated."""
HEALTH_SCALE = 0.01
LOG = "log_milestone_"
MILESTONES = (
    *("log", "planks", "stick", "crafting_table", "wooden_pickaxe", "cobblestone", "stone_pickaxe", "iron_ore"),
    *("furnace", "iron_ingot", "iron_pickaxe", "diamond"),
)
"""What an episode of the diamond task rewards once each, in the order in which they become possible."""


class Progress:
    """Pays 1 for the first time that each milestone is held, and a hundredth of the change of health (0 to 1).

    With one ``milestone`` only that one pays, health does not, and ``done`` says whether it was reached.
    """

    def __init__(self, milestone: str | None = None) -> None:
        self._goal = None if milestone is None else MILESTONES.index(milestone)
        self.reset()

    def reset(self) -> None:
        """As at the beginning of an episode: nothing reached, in full health."""
        self.reached: NDArray[np.bool_] = np.zeros(len(MILESTONES), np.bool_)
        self._health = 1.0

    @property
    def done(self) -> bool:
        """Whether the one milestone that pays was reached."""
        return self._goal is not None and bool(self.reached[self._goal])

    def pay(self, held: NDArray[np.bool_], health: float) -> float:
        """The reward of a step after which these of ``MILESTONES`` ``(12,)`` are held, and this much health is left."""
        new = held & ~self.reached
        self.reached |= new
        change, self._health = health - self._health, health
        if self._goal is None:
            return float(new.sum()) + HEALTH_SCALE * change
        return float(new[self._goal])

    def summary(self) -> dict[str, float]:
        """1 or 0 under ``log_milestone_<name>`` for each, and ``log_milestones``, how many."""
        reached = {LOG + name: float(done) for name, done in zip(MILESTONES, self.reached, strict=True)}
        return {**reached, "log_milestones": float(self.reached.sum())}

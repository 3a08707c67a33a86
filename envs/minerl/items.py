"""The kinds of items that observations count: MineRL's, one line of ``items.txt`` each, variants of logs merged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from oneiros.envs.minecraft.progress import MILESTONES

MERGED = {"log2": "log"}
"""Items that count as another one: the logs of acacia and dark oak are an item of their own in this version."""
NONE, OTHER = "none", "other"


@cache
def kinds() -> tuple[str, ...]:
    """Their 391 names, in the order of the observation."""
    return tuple((Path(__file__).parent / "items.txt").read_text().split())


@cache
def _places() -> dict[str, int]:
    return {name: place for place, name in enumerate(kinds())}


def equipment() -> tuple[str, ...]:
    """What can be in the hand, in the order of ``equipped`` ``(393,)``: the kinds, nothing, and anything else."""
    return (*kinds(), NONE, OTHER)


def equipped_place(name: str) -> int:
    """The place in ``equipped`` of an item; of a name that is unknown, that of ``other``."""
    if name == NONE:
        return len(kinds())
    return _places().get(MERGED.get(name, name), len(kinds()) + 1)


def milestone_places() -> list[int]:
    """Where each of the milestones is counted."""
    return [_places()[name] for name in MILESTONES]


class Tally:
    """Counts inventories whose columns are ``names`` by kind; columns that are no kind are left out."""

    def __init__(self, names: Sequence[str]) -> None:
        merged = [MERGED.get(name, name) for name in names]
        known = [column for column, name in enumerate(merged) if name in _places()]
        self._columns = np.array(known, np.intp)
        self._places = np.array([_places()[merged[column]] for column in known], np.intp)

    def count(self, inventory: NDArray[np.integer]) -> NDArray[np.float32]:
        """``(..., len(names))`` counts as ``(..., 391)``."""
        counts = np.zeros((*inventory.shape[:-1], len(kinds())), np.float32)
        np.add.at(counts.T, self._places, inventory[..., self._columns].T)
        return counts

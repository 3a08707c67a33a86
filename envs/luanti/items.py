"""The kinds of items that observations count: one line of the game's ``items.txt`` each, variants merged."""

from __future__ import annotations

from functools import cache

from oneiros.envs.luanti.installation import GAME_SOURCE
from oneiros.envs.minecraft.progress import MILESTONES


@cache
def kinds() -> tuple[str, ...]:
    """Their names, in the order of the observation."""
    lines = (GAME_SOURCE / "mods" / "oneiros" / "items.txt").read_text().splitlines()
    return tuple(line.split()[0] for line in lines)


@cache
def milestone_places() -> tuple[int, ...]:
    """Where each of ``MILESTONES`` is counted in the inventory."""
    return tuple(kinds().index(name) for name in MILESTONES)

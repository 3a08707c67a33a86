"""The kinds of items that observations count: one line of the game's ``items.txt`` each, variants merged."""

from __future__ import annotations

from functools import cache

from oneiros.envs.luanti.installation import GAME_SOURCE

MILESTONES = (
    *("log", "planks", "stick", "crafting_table", "wooden_pickaxe", "cobblestone", "stone_pickaxe", "iron_ore"),
    *("furnace", "iron_ingot", "iron_pickaxe", "diamond"),
)
"""What an episode of the diamond task rewards once each, in the order in which they become possible."""


@cache
def kinds() -> tuple[str, ...]:
    """Their names, in the order of the observation."""
    lines = (GAME_SOURCE / "mods" / "oneiros" / "items.txt").read_text().splitlines()
    return tuple(line.split()[0] for line in lines)


@cache
def milestone_places() -> tuple[int, ...]:
    """Where each of ``MILESTONES`` is counted in the inventory."""
    return tuple(kinds().index(name) for name in MILESTONES)

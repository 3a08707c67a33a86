"""A player that knows where things are gets them with the 25 actions, which proves that the way to them is there.

The whole way to the diamond takes minutes: tests/benchmarks/luanti_player.py goes it and records it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.luanti.items import kinds
from oneiros.envs.luanti.scripted import Player
from oneiros.envs.minecraft.actions import NAMES

pytestmark = pytest.mark.usefixtures("engine")
WORLD = 7


def play(until: str, steps: int) -> tuple[dict[str, int], list[int], list[Any]]:
    """The steps at which milestones were reached, and every action and what came of it."""
    env = registry.make("luanti/diamond", worlds=[WORLD], spare=False, oracle=True)
    actions: list[int] = []
    outcomes: list[Any] = []

    def seen(action: int, outcome: Any) -> None:
        actions.append(action)
        outcomes.append(outcome)

    try:
        observation, _ = env.reset(seed=0)
        return Player(env.unwrapped, observation, steps, seen).play(until), actions, outcomes  # type: ignore[arg-type]
    finally:
        env.close()


def test_from_nothing_to_a_wooden_pickaxe() -> None:
    reached, actions, outcomes = play("wooden_pickaxe", 1000)
    assert list(reached) == ["log", "planks", "stick", "crafting_table", "wooden_pickaxe"]
    assert set(actions) <= set(range(len(NAMES)))
    rewards = np.array([outcome[1] for outcome in outcomes])
    # Each milestone pays once, at the step at which it is reached; the rest is a hundredth of the change of health.
    assert sorted(reached.values()) == list(np.flatnonzero(rewards > 0.5) + 1)
    assert np.isclose(rewards.sum(), 5, atol=0.011)
    last = outcomes[-1][0]
    assert (last["inventory_max"] >= last["inventory"]).all()
    assert last["inventory_max"][kinds().index("log")] >= 9
    assert last["equipped"][kinds().index("wooden_pickaxe")] == 1

"""A player that knows where things are gets them with the 25 actions, which proves that the way to them is there.

tests/benchmarks/luanti_player.py plays further worlds the same way and records them, also those in which it fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.luanti.items import kinds
from oneiros.envs.luanti.scripted import Player
from oneiros.envs.minecraft.actions import NAMES
from oneiros.envs.minecraft.progress import MILESTONES

pytestmark = pytest.mark.usefixtures("engine")
# Of the worlds that are kept for evaluation, the one in which the way is shortest: some 2,000 steps.
WORLD = 2_000_004
MOST_STEPS = 6000


@pytest.mark.slow
def test_from_nothing_to_a_diamond() -> None:
    env = registry.make("luanti/diamond", worlds=[WORLD], spare=False, oracle=True)
    actions: list[int] = []
    rewards: list[float] = []

    def seen(action: int, outcome: Any) -> None:
        actions.append(action)
        rewards.append(outcome[1])

    try:
        first, info = env.reset(seed=0)
        assert info["world"] == WORLD
        assert first["inventory"].sum() == 0 and first["inventory_max"].sum() == 0 and first["equipped"][-1] == 1
        player = Player(env.unwrapped, first, MOST_STEPS, seen)  # type: ignore[arg-type]
        reached = player.play()
        assert player.ending == ""
        last = env.step(np.int64(NAMES.index("noop")))[0]
        summary = env.unwrapped.summary()  # type: ignore[attr-defined]
    finally:
        env.close()
    assert set(reached) == set(MILESTONES) and len(MILESTONES) == 12
    assert [summary[f"log_milestone_{name}"] for name in MILESTONES] == [1] * 12
    # There are no other actions than these, and none of them gives anything.
    assert len(NAMES) == 25 and set(actions) <= set(range(25))
    # Each milestone pays once, at the step at which it is reached; the rest is a hundredth of the change of health.
    assert sorted(reached.values()) == list(np.flatnonzero(np.array(rewards) > 0.5) + 1)
    assert np.isclose(sum(rewards), 12, atol=0.011)
    assert (last["inventory_max"] >= last["inventory"]).all()
    held = {name: last["inventory_max"][kinds().index(name)] for name in ("log", "cobblestone", "iron_ore", "diamond")}
    assert held["log"] >= 9 and held["cobblestone"] >= 11 and held["iron_ore"] >= 3 and held["diamond"] >= 1
    assert last["equipped"][kinds().index("iron_pickaxe")] == 1

"""What MineRL is told and what is made of its answers, on made-up ones: no process, no game."""

from __future__ import annotations

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption, MissingDependency, UnknownEnvironment
from oneiros.envs.minecraft.actions import ACTIONS, COMMANDS, NAMES, Controls
from oneiros.envs.minecraft.observation import Observer, observation_space
from oneiros.envs.minecraft.progress import MILESTONES, Progress
from oneiros.envs.minerl.environment import minerl_action
from oneiros.envs.minerl.items import Tally, equipment, equipped_place, kinds, milestone_places
from oneiros.envs.minerl_suite import SETTLING, STOCK, SUITE


def test_every_action_is_one_that_minerl_knows() -> None:
    controls = Controls(0, 0, 60)
    said = {name: minerl_action(controls.press(number)) for number, name in enumerate(NAMES)}
    assert len(NAMES) == 25 and len(COMMANDS) == 15
    assert said["noop"] == {}
    assert said["attack"] == {"attack": 1}
    assert said["turn_up"] == {"camera": [-15, 0]} and said["turn_right"] == {"camera": [0, 15]}
    assert said["jump"] == {"jump": 1, "forward": 1}
    assert said["place_dirt"] == {"place": "dirt"} and said["place_furnace"] == {"place": "furnace"}
    assert said["craft_stick"] == {"craft": "stick"} and said["craft_crafting_table"] == {"craft": "crafting_table"}
    assert said["craft_iron_pickaxe"] == {"nearbyCraft": "iron_pickaxe"}
    assert said["craft_furnace"] == {"nearbyCraft": "furnace"}
    assert said["equip_stone_pickaxe"] == {"equip": "stone_pickaxe"}
    assert said["smelt_iron_ingot"] == {"nearbySmelt": "iron_ingot"}
    assert len({str(action) for action in said.values()}) == 25
    assert {action.command for action in ACTIONS} == set(range(15))


def test_the_kinds_are_minerls_with_logs_merged() -> None:
    assert len(kinds()) == len(set(kinds())) == 391 and len(equipment()) == 393
    assert set(MILESTONES) <= set(kinds()) and "log2" not in kinds()
    assert [kinds()[place] for place in milestone_places()] == list(MILESTONES)
    assert equipped_place("log2") == equipped_place("log") == kinds().index("log")
    assert equipment()[equipped_place("none")] == "none"
    assert equipment()[equipped_place("a thing of another mod")] == "other"


def test_inventories_are_counted_by_kind_alone_and_in_batches() -> None:
    tally = Tally(["log", "a thing of another mod", "log2", "diamond"])
    counts = tally.count(np.array([[1, 9, 2, 0], [0, 9, 5, 1]]))
    assert counts.shape == (2, 391)
    assert counts[:, kinds().index("log")].tolist() == [3, 5]
    assert counts[:, kinds().index("diamond")].tolist() == [0, 1]
    assert counts.sum() == 9
    assert np.array_equal(tally.count(np.array([1, 9, 2, 0])), counts[0])


def held(*names: str) -> np.ndarray:
    return np.array([name in names for name in MILESTONES])


def test_each_milestone_pays_once_and_health_a_hundredth() -> None:
    progress = Progress()
    assert progress.pay(held("log"), 1.0) == 1
    assert progress.pay(held("log", "planks", "stick"), 1.0) == 2
    assert progress.pay(held("log"), 0.5) == pytest.approx(-0.005)
    assert progress.pay(held(), 0.75) == pytest.approx(0.0025)
    assert progress.pay(held("log"), 0.75) == 0
    assert progress.summary()["log_milestones"] == 3 and not progress.done
    progress.reset()
    assert progress.pay(held("log"), 1.0) == 1


def test_one_milestone_alone_ends_its_task_and_health_does_not_pay() -> None:
    progress = Progress("planks")
    assert progress.pay(held("log"), 0.5) == 0 and not progress.done
    assert progress.pay(held("planks"), 0.2) == 1 and progress.done
    assert progress.pay(held("planks"), 0.2) == 0 and progress.done


def test_the_most_that_was_held_is_remembered_until_the_episode_ends() -> None:
    observer = Observer(3, 5)
    image = np.zeros((8, 9, 3), np.uint8)
    space = observation_space(8, 9, 3, 5)
    observer.observe(image, np.array([4, 0, 1]), 4, 1.0, 1.0, 1.2)
    observation = observer.observe(image, np.array([1, 2, 0]), 0, 0.5, -1.0, 1.2)
    assert space.contains(observation)
    assert observation["inventory"].tolist() == [1, 2, 0] and observation["inventory_max"].tolist() == [4, 2, 1]
    assert observation["equipped"].tolist() == [1, 0, 0, 0, 0]
    assert [float(observation[name][0]) for name in ("health", "hunger", "breath")] == [0.5, 0, 1]
    observer.reset()
    assert observer.observe(image, np.zeros(3), 0, 1, 1, 1)["inventory_max"].sum() == 0


def test_tasks_and_options_are_checked_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    assert "diamond" in SUITE.tasks() and "MineRLNavigateDense-v0" in STOCK and len(STOCK) == 29
    assert STOCK["MineRLBasaltMakeWaterfallHighRes-v0"] == STOCK["MineRLBasaltMakeWaterfall-v0"] == 6000 - SETTLING
    for options in ({"break_speed": 0}, {"size": 16}, {"colour": 1}, {"sticky_jump": "long"}):
        with pytest.raises(InvalidOption, match=r"minerl/diamond|break_speed|sticky_jump"):
            SUITE.make("diamond", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="break_speed"):
        SUITE.make("MineRLTreechop-v0", break_speed=3)
    with pytest.raises(UnknownEnvironment):
        SUITE.make("FakeMineRLNavigateDense-v0")
    monkeypatch.setenv("ONEIROS_MINERL", f"{tmp_path}/nowhere")
    with pytest.raises(MissingDependency, match=r"MineRL 0\.4\.4.*oneiros setup minerl"):
        registry.make("minerl/diamond")

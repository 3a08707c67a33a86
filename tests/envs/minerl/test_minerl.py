"""MineRL's own classes, where its environment is: its fake task, and its real ones against a mock of the game's mod.

Whatever number comes out of these is made up by the mock: they show that the adapter works, and nothing else.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from malmo import Malmo  # type: ignore[import-not-found]
from oneiros.envs import registry
from oneiros.envs.minecraft.actions import NAMES, Controls
from oneiros.envs.minerl import installation, items, process
from oneiros.envs.minerl.environment import Diamond, Stock
from oneiros.envs.minerl_suite import SETTLING, STOCK

pytestmark = pytest.mark.skipif(
    installation.installed_version("minerl") is None,
    reason=f"needs MineRL {installation.VERSION}: {installation.SETUP} --without-game",
)
PYTHON = installation.python()
WAIT = 120.0


@pytest.fixture
def malmo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(process, "STEP_SECONDS", WAIT)
    server = Malmo()
    yield server
    server.close()


def test_minerls_own_fake_task() -> None:
    env = Stock(PYTHON, {"id": "FakeMineRLNavigateDense-v0"}, None)
    try:
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert observation["pov"].std() > 5 and observation["compass"]["angle"].shape == (1,)
        for _ in range(3):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert env.observation_space.contains(observation)
            assert (reward, terminated, truncated) == (0, False, False)
    finally:
        env.close()


def test_the_diamond_task_through_minerls_real_class(malmo: Any) -> None:
    env = Diamond(PYTHON, controls=Controls(0, 10, 60), break_speed=100.0, port=malmo.port)

    def act(name: str) -> Any:
        return env.step(np.int64(NAMES.index(name)))

    try:
        observation, _ = env.reset(seed=3)
        assert env.observation_space.contains(observation)
        assert "<BreakSpeedMultiplier>100.0</BreakSpeedMultiplier>" in malmo.missions[0]
        assert malmo.tokens[0].split(":")[-1].isdigit()
        assert (observation["image"][0] == 200).all() and (observation["image"][1:] == 0).all()
        assert np.isclose(observation["hunger"], 0.9) and observation["breath"] == 0.5
        assert observation["equipped"][items.kinds().index("air")] == 1
        assert [act("attack")[1] for _ in range(3)] == [1, 0, 0]
        assert act("craft_planks")[0]["inventory"][items.kinds().index("log")] == 3
        assert act("craft_wooden_pickaxe")[1] == 1
        observation = act("equip_wooden_pickaxe")[0]
        assert observation["equipped"][items.kinds().index("wooden_pickaxe")] == 1
        act("smelt_iron_ingot")
        assert "smeltNearby iron_ingot" in malmo.commands and "attack 0" in malmo.commands
        act("turn_down")
        assert "camera 15.0 0.0" in malmo.commands
        act("place_crafting_table")
        assert "place crafting_table" in malmo.commands
        for _ in range(3):
            assert act("back")[2:4] == (False, False)
        _, reward, terminated, truncated, info = act("back")
        assert (terminated, truncated) == (True, False) and np.isclose(reward, -0.01 / 4)
        assert info["log_milestones"] == 4 and info["log_milestone_diamond"] == 0
        observation, _ = env.reset()
        assert len(malmo.missions) == 2 and malmo.tokens[0] != malmo.tokens[1]
        assert observation["inventory"].sum() == observation["inventory_max"].sum() == 0
    finally:
        env.close()


def test_every_task_that_minerl_registers_is_known_but_its_tests_of_itself() -> None:
    program = "from minerl.herobraine.envs import ENV_SPEC_MAPPINGS as all; " + (
        "print(*(f'{name}={task.max_episode_steps}' for name, task in all.items()))"
    )
    said = subprocess.run([PYTHON, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True).stdout
    found = dict(pair.split("=") for pair in said.splitlines()[-1].split())
    lengths = {name: length + SETTLING if "Basalt" in name else length for name, length in STOCK.items()}
    assert lengths == {name: int(length) for name, length in found.items() if "ObtainTest" not in name}


def test_a_stock_task_through_minerls_real_class(malmo: Any) -> None:
    env = Stock(PYTHON, {"id": "MineRLObtainDiamond-v0", "port": malmo.port}, length=18_000)
    try:
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation) and len(observation["inventory"]) == 18
        quiet = {**{key: 0 for key in env.action_space}, "camera": np.array([0, 90], np.float32)}
        names = {
            name: part["values"] for name, part in env.keeper.child.action_space["spaces"].items() if "values" in part
        }
        action = {**quiet, **{name: values.index("none") for name, values in names.items()}}
        observation, reward, *_ = env.step({**action, "attack": 1, "craft": names["craft"].index("torch")})
        assert reward == 0.5 and observation["inventory"]["torch"] == 1
        # Logs of the other kind are merged by MineRL itself here.
        assert observation["inventory"]["log"] == 1 and "camera 0.0 90.0" in malmo.commands
    finally:
        env.close()


@pytest.mark.parametrize(
    ("name", "size", "seen"), [("FindCave", 64, 11), ("BuildVillageHouse", 64, 29), ("FindCaveHighRes", 1024, 11)]
)
def test_a_basalt_task_has_no_reward_and_a_snowball_ends_it(
    monkeypatch: pytest.MonkeyPatch, name: str, size: int, seen: int
) -> None:
    monkeypatch.setattr(process, "STEP_SECONDS", WAIT)
    # The game's clock has not stood still while the task settled.
    server = Malmo(size, size, longest=SETTLING + 20, given=("snowball",))
    env = Stock(PYTHON, {"id": f"MineRLBasalt{name}-v0", "port": server.port}, length=20)
    try:
        equip = env.keeper.child.action_space["spaces"]["equip"]["values"]
        quiet = {**{key: 0 for key in env.action_space}, "camera": np.zeros(2, np.float32)}
        quiet["equip"] = equip.index("none") if "none" in equip else 0

        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation) and observation["pov"].shape == (size, size, 3)
        assert len(observation["inventory"]) == seen and observation["inventory"]["snowball"] == 1
        env.step({**quiet, "equip": equip.index("snowball")})
        steps = [env.step({**quiet, "use": 1}), *(env.step(quiet) for _ in range(11))]
        assert [step[2:4] for step in steps] == 11 * [(False, False)] + [(True, False)]
        assert env.observation_space.contains(steps[-1][0])

        env.reset()
        steps = [env.step(quiet) for _ in range(20)]
        assert [step[2:4] for step in steps] == 19 * [(False, False)] + [(False, True)]
    finally:
        env.close()
        server.close()


def test_a_game_that_hangs_costs_the_episode(malmo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = Diamond(PYTHON, controls=Controls(0, 0, 60), port=malmo.port)
    try:
        before, _ = env.reset(seed=0)
        malmo.silent.set()
        monkeypatch.setattr(process, "STEP_SECONDS", 1.0)
        observation, reward, terminated, truncated, info = env.step(np.int64(0))
        assert (reward, terminated, truncated) == (0, False, True) and info["episode_fault"]
        assert observation is before
        malmo.silent.clear()
        monkeypatch.setattr(process, "STEP_SECONDS", WAIT)
        env.reset()
        assert env.step(np.int64(0))[2:4] == (False, False)
    finally:
        env.close()


@pytest.mark.skipif(installation.game() is None, reason=f"needs MineRL's game: {installation.DOCTOR} says how")
def test_the_game_itself() -> None:
    env = registry.make("minerl/diamond")
    try:
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation) and observation["image"].std() > 5
        for name in ("forward", "attack", "turn_down", "jump"):
            for _ in range(5):
                observation, *_ = env.step(NAMES.index(name))
        assert env.observation_space.contains(observation)
    finally:
        env.close()

"""Another Python's environment: what goes over the wire, what survives, what is left. MineRL itself is not needed."""

from __future__ import annotations

import ast
import logging
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from oneiros.envs.minecraft.actions import NAMES, Controls
from oneiros.envs.minerl import environment, janitor, process
from oneiros.envs.minerl.environment import Diamond, Stock
from oneiros.envs.minerl.items import equipment, kinds
from oneiros.envs.minerl.process import Child, ChildFailed, Keeper

FAKES = Path(__file__).parents[1] / "fakes" / "old_gym.py"
WAIT = 120.0


def wanted(name: str, **more: Any) -> dict[str, Any]:
    return {"file": str(FAKES), "class": name, **more}


def diamond(name: str = "Diamond", **options: Any) -> Diamond:
    controls = Controls(sticky_attack=0, sticky_jump=10, pitch_limit=60)
    env = Diamond(sys.executable, controls=controls, **options)
    env.keeper = Keeper(sys.executable, wanted(name, packed=[environment.INVENTORY]))
    return env


def marked(mark: str | None = None) -> set[int]:
    """Processes that children started, by their marks."""
    found = set()
    for one in psutil.process_iter():
        try:
            value = one.environ().get(janitor.VARIABLE)
            if value is not None and mark in (None, value) and one.status() != psutil.STATUS_ZOMBIE:
                found.add(one.pid)
        except (psutil.Error, OSError):
            continue
    return found


def gone(mark: str, folder: Path) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if not marked(mark) and not folder.exists():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def player() -> Any:
    env = diamond()
    yield env
    env.close()


def act(env: Diamond, *names: str) -> Any:
    outcome = None
    for name in names:
        outcome = env.step(np.int64(NAMES.index(name)))
    return outcome


def test_the_protocol_over_the_wire(player: Diamond) -> None:
    observation, info = player.reset(seed=3)
    assert info == {}
    assert player.observation_space.contains(observation)
    assert observation["inventory"].shape == (391,) and observation["equipped"].shape == (393,)
    assert observation["equipped"][391] == 1 and observation["health"] == 1 and observation["hunger"] == 0.5
    observation, reward, terminated, truncated, _ = act(player, "attack")
    assert (reward, terminated, truncated) == (1, False, False)
    observation, reward, *_ = act(player, "attack")
    # The second log is of another wood, which is the same item here.
    assert observation["inventory"][kinds().index("log")] == 2 and reward == 0
    assert act(player, "craft_planks")[1] == 1
    assert act(player, "craft_planks")[1] == 0
    observation = act(player, "craft_wooden_pickaxe", "equip_wooden_pickaxe")[0]
    assert observation["equipped"][equipment().index("wooden_pickaxe")] == 1
    observation, reward, *_ = act(player, "back")
    assert np.isclose(reward, 0.01 * -2 / 20) and np.isclose(observation["health"], 0.9)
    assert np.isclose(act(player, "turn_up")[0]["breath"], 285 / 300)


def test_the_same_seed_gives_the_same_worlds(player: Diamond) -> None:
    def pictures() -> list[int]:
        return [int(player.reset(seed=seed)[0]["image"][0, 0, 0]) for seed in (5, None, None)]

    first = pictures()
    assert first == pictures()
    assert len(set(first)) == 3


def test_death_terminates_and_the_last_info_says_what_was_reached(player: Diamond) -> None:
    player.reset(seed=0)
    act(player, "attack", *["back"] * 9)
    _, _, terminated, truncated, info = act(player, "back")
    assert (terminated, truncated) == (True, False)
    assert info["log_milestone_log"] == 1 and info["log_milestones"] == 1
    with pytest.raises(ResetNeeded):
        act(player, "noop")


def test_the_limit_of_steps_truncates(player: Diamond, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "_length", 3)
    player.reset(seed=0)
    assert act(player, "noop", "noop")[2:4] == (False, False)
    _, _, terminated, truncated, info = act(player, "noop")
    assert (terminated, truncated, info["log_milestones"]) == (False, True, 0)


def test_stock_tasks_keep_their_spaces_and_their_limit_truncates() -> None:
    env = Stock(sys.executable, wanted("Stock"), length=None, render_mode="rgb_array")
    try:
        assert isinstance(env.action_space, spaces.Dict) and env.action_space["place"] == spaces.Discrete(2)
        assert env.observation_space["compass"]["angle"].shape == (1,)
        observation, _ = env.reset(seed=1)
        assert env.observation_space.contains(observation)
        quiet = {"attack": 0, "camera": np.zeros(2, np.float32), "place": 1}
        for _ in range(4):
            observation, reward, terminated, truncated, _ = env.step(quiet)
            assert env.observation_space.contains(observation) and not terminated and not truncated
        assert observation["compass"]["angle"] == 4 and reward == 0
        assert env.step({**quiet, "place": np.int64(0)})[1:4] == (1.0, False, True)
        env.reset()
        assert env.step({**quiet, "camera": np.array([0, 1], np.float32)})[1:4] == (100.0, True, False)
        assert env.render().shape == (64, 64, 3)
    finally:
        env.close()


@pytest.mark.parametrize("fault", ["hangs", "dies", "raises", "loses its game"])
def test_a_game_that_fails_is_killed_counted_and_replaced(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAULT", fault)
    env = diamond("Faulty")
    caplog.set_level(logging.WARNING)
    try:
        before, _ = env.reset(seed=0)
        child = env.keeper.child
        assert child is not None and len(marked(child._mark)) == 2
        if fault == "hangs":
            monkeypatch.setattr(process, "STEP_SECONDS", 1.0)
        observation, reward, terminated, truncated, info = act(env, "attack")
        monkeypatch.setattr(process, "STEP_SECONDS", WAIT)
        assert (reward, terminated, truncated, env.keeper.failures) == (0, False, True, 1)
        assert observation is before and info["log_milestones"] == 0
        told = {"raises": "the world is flat", "loses its game": "Connection timed out!"}.get(fault, "")
        assert told in info["episode_fault"]
        assert len([record for record in caplog.records if "is replaced" in record.message]) == 1
        assert gone(child._mark, child.folder)
        with pytest.raises(ResetNeeded):
            act(env, "noop")
        env.reset()
        assert act(env, "noop")[2:4] == (False, False)
    finally:
        env.close()


def test_an_environment_that_cannot_be_made_says_why_and_leaves_nothing() -> None:
    before = marked()
    with pytest.raises(ChildFailed, match="no display"):
        Child(sys.executable, wanted("Broken"))
    with pytest.raises(ChildFailed, match="the process ended"):
        Child("/bin/false", wanted("Diamond"))
    assert marked() <= before


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    script = f"""
        import sys
        from oneiros.envs.minerl.process import Child
        child = Child(sys.executable, {wanted("Faulty")!r})
        child.reset(0)
        print(child._mark, child.folder, flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        mark, folder = parent.stdout.readline().split()
        assert len(marked(mark)) == 2 and Path(folder).is_dir()
        parent.send_signal(signal.SIGKILL)
        parent.wait(WAIT)
        assert gone(mark, Path(folder))
    finally:
        parent.kill()
        parent.communicate()


def test_what_runs_in_minerls_python_is_written_for_the_oldest_of_them() -> None:
    inside = Path(process.__file__).parent / "inside"
    wire = inside.parents[1] / "external" / "wire.py"
    for path in (*inside.glob("*.py"), wire):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        assert not [name for name in names if name and name.split(".")[0] in ("oneiros", "torch", "ray", "gymnasium")]

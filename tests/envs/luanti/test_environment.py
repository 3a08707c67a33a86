"""The environment on the real engine: what is observed, what repeats, what survives."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from luanti_traces import leftovers, processes, settles  # type: ignore[import-not-found]
from oneiros.envs import registry
from oneiros.envs.luanti import installation
from oneiros.envs.luanti import instance as instances
from oneiros.envs.luanti.items import kinds
from oneiros.envs.minecraft.actions import NAMES

pytestmark = pytest.mark.usefixtures("engine")
WORLD = 7
JUNGLE = 3


def make(**options: Any) -> Any:
    return registry.make("luanti/diamond", **{"spare": False, "worlds": [WORLD], **options})


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = make(oracle=True)
    yield made
    made.close()


def trace(env: Any, steps: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Hashes of the pictures, and everything else that is observed, over random actions in one world."""
    observation, _ = env.reset(seed=3)
    rng = np.random.default_rng(0)
    pictures, rest = [], []
    for _ in range(steps):
        pictures.append(hashlib.sha256(observation["image"].tobytes()).hexdigest())
        observation, reward, terminated, truncated, _ = env.step(int(rng.integers(len(NAMES))))
        others = tuple(value.tobytes() for key, value in observation.items() if key != "image")
        rest.append((reward, terminated, truncated, others, tuple(env.unwrapped.instance.memory.state)))
    return pictures, rest


def test_observations_are_in_their_space_and_the_picture_shows_something(env: Any) -> None:
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["world"] == WORLD
    assert observation["image"].std() > 10
    assert observation["health"] == observation["hunger"] == observation["breath"] == 1
    assert observation["inventory"].sum() == 0 and observation["equipped"][-1] == 1


def test_each_key_does_what_it_says(env: Any) -> None:
    env.reset(seed=0)
    memory = env.unwrapped.instance.memory

    def value(name: str) -> float:
        return float(memory.value(name))

    def repeat(name: str, times: int) -> None:
        for _ in range(times):
            env.step(NAMES.index(name))

    before = value("yaw")
    repeat("turn_right", 3)
    repeat("noop", 1)
    assert np.isclose((before - value("yaw")) % (2 * np.pi), np.pi / 4, atol=1e-3)
    repeat("turn_down", 7)
    repeat("noop", 1)
    assert np.isclose(np.degrees(value("pitch")), 60, atol=0.1)
    repeat("turn_up", 4)
    start = value("x"), value("z")
    repeat("left", 10)
    left = value("x"), value("z")
    repeat("right", 10)
    assert np.hypot(left[0] - start[0], left[1] - start[1]) > 0.5
    assert np.hypot(value("x") - left[0], value("z") - left[1]) > 0.5


def test_the_same_seed_and_actions_give_the_same_episode_in_another_process() -> None:
    traces = []
    for _ in range(2):
        env = make()
        try:
            traces.append(trace(env, 150))
        finally:
            env.close()
    assert traces[0][1] == traces[1][1]
    assert traces[0][0] == traces[1][0]
    assert len(set(traces[0][0])) > 50


def test_what_is_left_out_of_a_picture_was_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    for sources in (installation.SHIM_SOURCES, installation.SHIM_SOURCES[:1]):
        monkeypatch.setattr(installation, "SHIM_SOURCES", sources)
        env = make(worlds=[JUNGLE])
        try:
            traces.append(trace(env, 60)[0])
        finally:
            env.close()
    assert traces[0] == traces[1]
    assert len(set(traces[0])) > 20


def test_one_step_is_one_step_of_the_server(env: Any) -> None:
    env.reset(seed=0)
    memory = env.unwrapped.instance.memory
    first, time_of_day = memory.value("server_steps"), memory.value("time_of_day")
    for _ in range(100):
        env.step(0)
    assert memory.value("server_steps") == first + 100
    # A day is 20 minutes, and a step a twentieth of a second.
    assert np.isclose(memory.value("time_of_day") - time_of_day, 5 / 1200, atol=1e-4)


def test_every_item_of_the_game_has_its_place(env: Any) -> None:
    env.reset(seed=0)
    env.unwrapped.instance.ask("items")
    env.step(0)
    names = env.unwrapped.instance.answer()
    lines = (instances.installation.GAME_SOURCE / "mods" / "oneiros" / "items.txt").read_text().split("\n")
    listed = {name for line in lines for name in line.split()[2:]}
    assert listed <= set(names)
    held = [name for name in names if name.startswith(("default:", "oneiros:")) and name not in listed]
    liquids_and_states = ("flowing", "_source", "_active", "_open", "torch_", "cloud")
    assert [name for name in held if not any(word in name for word in liquids_and_states)] == []


@pytest.mark.parametrize("fault", ["killed", "hangs", "display"])
def test_a_game_that_ends_or_hangs_is_replaced(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes(), leftovers()
    env = make()
    try:
        env.reset(seed=0)
        game = env.unwrapped.instance
        patience = instances.STEP_SECONDS
        if fault == "killed":
            game.process.kill()
        elif fault == "hangs":
            monkeypatch.setattr(instances, "STEP_SECONDS", 1.0)
            game.process.send_signal(signal.SIGSTOP)
        else:
            env.unwrapped._display.process.kill()
            env.unwrapped._display.process.wait()
        for _ in range(3):
            observation, reward, terminated, truncated, info = env.step(0)
            if truncated:
                break
        assert (reward, terminated, truncated, env.unwrapped.failures) == (0, False, True, 1)
        assert info["episode_fault"]
        assert env.observation_space.contains(observation)
        assert game.process.returncode is not None and not game.folder.exists()
        with pytest.raises(ResetNeeded):
            env.step(0)
        monkeypatch.setattr(instances, "STEP_SECONDS", patience)
        env.reset()
        assert env.step(0)[2:4] == (False, False)
    finally:
        env.close()
    assert settles(before)


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    before = processes(), leftovers()
    script = """
        from oneiros.envs import registry
        env = registry.make("luanti/log", worlds=[7, 8])
        env.reset(seed=0)
        env.step(0)
        print("running", flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"running\n"
        assert len(processes() - before[0]) == 3  # the game, the spare one, and the X server
    finally:
        parent.kill()
        parent.communicate()
    assert settles(before)


def test_several_step_at_once_and_a_milestone_ends_its_own_task() -> None:
    before = processes(), leftovers()
    vector = registry.make_vector("luanti/log", 2, seed=1, spare=False, worlds=[WORLD], time_limit=5)
    try:
        vector.reset()
        assert len(processes() - before[0]) == 4
        for _ in range(5):
            observations, _, terminated, truncated, infos = vector.step(np.zeros(2, np.int64))
        assert truncated.all() and not terminated.any()
        assert [info["log_milestone_log"] for info in infos["each"]] == [0, 0]
        assert observations["inventory"].shape == (2, len(kinds()))
    finally:
        vector.close()
    assert settles(before)

"""Faults of environments: counted, logged once, survived, and never learnt from."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from counting_policy import CountingPolicy
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from oneiros.envs.vector.fault import EnvironmentBroken
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.rollout import Rollout
from scripted import Scripted

DISCRETE = spaces.Discrete(4)
LOSING = partial(Scripted, fault="lost")


class Mixed:
    """Builds environments of which the second faults, the others do not."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.built = 0

    def __call__(self) -> Scripted:
        self.built += 1
        return Scripted(fault=self.fault if self.built == 2 else "", number=self.built)


def assert_cut(rows: dict[str, Any], slot: int) -> None:
    """Episode 0 whole; episode 1 cut after its step 1, because step 2 faulted; then episode 2."""
    obs = rows["obs"][slot]
    assert [tuple(map(int, row[1:3])) for row in obs[:8]] == [
        *[(0, 0), (0, 1), (0, 2), (0, 3)],
        *[(1, 0), (1, 1)],
        *[(2, 0), (2, 1)],
    ]
    assert list(rows["is_last"][slot, :8]) == [False, False, False, True, False, True, False, True]
    assert list(rows["is_first"][slot, :8]) == [True, False, False, False, True, False, True, False]
    assert list(rows["is_terminal"][slot, :8]) == [False, False, False, True, False, False, False, True]
    assert list(rows["action"][slot, :8]) == [0, 1, 2, 0, 0, 0, 0, 0]
    assert list(rows["reward"][slot, :8]) == [0, 1, 2, 3, 0, 11, 0, 21]
    assert np.isfinite(obs).all()


@pytest.mark.parametrize(
    "fault, kind",
    [
        ("raised", "raised"),
        ("nan", "nan"),
        ("nan reward", "nan"),
        ("shape", "shape"),
        ("dtype", "dtype"),
        ("reward", "reward"),
    ],
)
@pytest.mark.parametrize("pieces", [[20], [1] * 20], ids=["one chunk", "row by row"])
def test_a_fault_cuts_one_episode(fault: str, kind: str, pieces: list[int], caplog: pytest.LogCaptureFixture) -> None:
    rollout = Rollout(SyncVector(Mixed(fault), 3), CountingPolicy(DISCRETE))
    with caplog.at_level(logging.WARNING):
        chunks = [rollout.collect(steps) for steps in pieces]
    rows = {key: np.concatenate([chunk.rows[key] for chunk in chunks], axis=1) for key in chunks[0].rows}
    assert_cut(rows, 1)
    for healthy in (0, 2):
        assert list(rows["is_last"][healthy, :10]) == [False] * 3 + [True] + [False] * 5 + [True]
    assert rollout.metrics()[f"faults/{kind}"] == 1
    assert len(caplog.records) == 1
    assert rollout.env_steps == np.count_nonzero(~rows["is_last"])
    cut = [episode for episode in rollout.episodes() if episode.faulted]
    assert [(episode.slot, episode.length, episode.score, episode.terminated) for episode in cut] == [
        (1, 1, 11.0, False)
    ]


def test_a_fault_is_logged_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    rollout = Rollout(SyncVector(partial(Scripted, fault="raised", at=(1, 2)), 4), CountingPolicy(DISCRETE))
    with caplog.at_level(logging.WARNING):
        rollout.collect(20)
    assert rollout.metrics()["faults/raised"] == 4
    assert len(caplog.records) == 1
    assert "RuntimeError during step" in caplog.text and "broken on purpose" in caplog.text


@pytest.mark.parametrize("make", [SyncVector, SubprocessVector])
def test_a_fault_while_resetting(make: Callable[..., Any]) -> None:
    rollout = Rollout(make(partial(Scripted, fault="reset", at=(1, 0)), 1), CountingPolicy(DISCRETE))
    rows = rollout.collect(8).rows
    rollout.close()
    assert [int(row[1]) for row in rows["obs"][0]] == [0, 0, 0, 0, 2, 2, 3, 3]
    assert rollout.metrics()["faults/raised"] == 1
    assert [episode.faulted for episode in rollout.episodes()] == [False, False]


def test_an_environment_that_never_resets_is_named() -> None:
    with pytest.raises(EnvironmentBroken, match=r"stubborn faulted 5 times in a row.*cannot ever reset"):
        SyncVector(partial(Scripted, fault="never"), 1, name="stubborn").reset()
    env = SubprocessVector(partial(Scripted, fault="never"), 1, name="stubborn")
    with pytest.raises(EnvironmentBroken, match="stubborn faulted 5 times in a row"):
        env.reset()
    env.close()


@pytest.mark.parametrize("fault", ["raised", "nan", "died", "hang"])
def test_a_fault_in_a_process_cuts_one_episode(fault: str) -> None:
    factory = partial(Scripted, fault=fault)
    env = SubprocessVector(factory, 2, step_timeout=2.0)
    before = env.pids
    rollout = Rollout(env, CountingPolicy(DISCRETE))
    rows = rollout.collect(7).rows
    after = env.pids
    rollout.close()
    assert rollout.metrics()[f"faults/{fault}"] == 2
    for slot in range(2):
        assert list(rows["is_last"][slot]) == [False, False, False, True, False, True, False]
        assert list(rows["is_first"][slot]) == [True, False, False, False, True, False, True]
        # A replaced process begins to count its episodes anew.
        assert rows["obs"][slot, 6, 1] == (0 if fault in {"died", "hang"} else 2)
        assert (before[slot] != after[slot]) == (fault in {"died", "hang"})


@pytest.mark.parametrize("num_envs, loss", [(3, signal.SIGKILL), (1, signal.SIGSTOP)], ids=["died", "hangs"])
def test_a_process_lost_between_two_steps_is_replaced_by_the_next_one(num_envs: int, loss: signal.Signals) -> None:
    env = SubprocessVector(partial(gymnasium.make, "CartPole-v1"), num_envs)
    rollout = Rollout(env, CountingPolicy(spaces.Discrete(2)), random_steps=100)
    rollout.collect(2)
    assert rollout.state_dict()["environments"] is not None
    before = env.pids
    os.kill(before[0], loss)
    env.reset_timeout = 0.5 if loss is signal.SIGSTOP else 600.0
    assert rollout.state_dict()["environments"] is None
    env.reset_timeout = 600.0
    rows = rollout.collect(2).rows
    assert rows["is_first"][0, 1] and not rows["is_first"][1:, 1].any()
    assert env.pids[0] != before[0] and env.pids[1:] == before[1:]
    assert rollout.metrics()["faults/died"] == 1
    assert rollout.state_dict()["environments"] is not None
    rollout.close()


@pytest.mark.parametrize(
    "vector",
    [
        lambda: SyncVector(LOSING, 1),
        lambda: SubprocessVector(LOSING, 1),
        lambda: SyncVectorEnv([LOSING]),
    ],
    ids=["ours", "processes", "gymnasium"],
)
def test_an_episode_that_its_environment_lost_is_learnt_from_and_counted_as_a_fault(vector: Callable[[], Any]) -> None:
    rollout = Rollout(vector(), CountingPolicy(DISCRETE))
    rows = rollout.collect(8).rows
    rollout.close()
    assert list(rows["is_last"][0]) == [False, False, False, True, False, False, True, False]
    assert not rows["is_terminal"][0, 4:].any()
    assert [(episode.faulted, episode.length) for episode in rollout.episodes()][:2] == [(False, 3), (True, 2)]
    assert rollout.metrics()["faults/lost"] == 1


@contextlib.contextmanager
def limited(pids: list[int], megabytes: int) -> Iterator[None]:
    """Give processes so little memory that the kernel kills the one that wants more."""
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "memory") / f"oneiros-test-{os.getpid()}"
    try:
        if unified and "memory" not in (root / "cgroup.subtree_control").read_text():
            pytest.skip("this machine's control groups do not limit memory")
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(str(megabytes * 2**20))
        for name, value in (("memory.swap.max", "0"), ("memory.swappiness", "0")):
            if (group / name).exists():
                (group / name).write_text(value)
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for _ in range(100):
            # A process that was killed a moment ago may still be counted.
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def test_an_environment_that_leaks_until_it_is_killed_costs_an_episode() -> None:
    env = SubprocessVector(partial(Scripted, fault="leak"), 1)
    (before,) = env.pids
    rollout = Rollout(env, CountingPolicy(DISCRETE))
    try:
        with limited([before], megabytes=64):
            rows = rollout.collect(7).rows
        (after,) = env.pids
    finally:
        rollout.close()
    # Killed by the kernel, not raised by itself; another process goes on.
    assert {name: count for name, count in rollout.metrics().items() if "faults" in name} == {"faults/died": 1}
    assert before != after
    assert list(rows["is_last"][0]) == [False, False, False, True, False, True, False]


def test_closing_does_not_wait_for_a_process_that_hangs() -> None:
    env = SubprocessVector(partial(Scripted, fault="hang", at=(0, 1)), 1, step_timeout=None)
    env.reset()
    env._send(0, "step", 0)
    started = time.monotonic()
    env.close()
    assert time.monotonic() - started < 10


def test_gymnasiums_own_vectors_are_reset_when_they_break() -> None:
    factories = [partial(Scripted, fault=fault) for fault in ("", "nan")]
    rollout = Rollout(SyncVectorEnv(factories), CountingPolicy(DISCRETE))
    rows = rollout.collect(10).rows
    assert_cut(rows, 1)
    assert list(rows["is_last"][0, :10]) == [False] * 3 + [True] + [False] * 5 + [True]
    assert rollout.metrics()["faults/nan"] == 1

    factories = [partial(Scripted, fault=fault) for fault in ("", "raised")]
    rollout = Rollout(SyncVectorEnv(factories), CountingPolicy(DISCRETE))
    rows = rollout.collect(8).rows
    for slot in range(2):
        assert_cut(rows, slot)
    assert rollout.metrics()["faults/raised"] == 2
    assert [episode.faulted for episode in rollout.episodes()].count(True) == 2


@pytest.mark.parametrize("fault", ["raised", "nan"])
def test_gymnasiums_own_vectors_are_not_reset_for_ever(fault: str) -> None:
    class Always(Scripted):
        def step(self, action: Any) -> Any:
            self.at = (self.episode, self.t + 1)
            return super().step(action)

    rollout = Rollout(SyncVectorEnv([partial(Always, fault=fault)] * 2), CountingPolicy(DISCRETE))
    with pytest.raises(EnvironmentBroken, match="faulted 5 times in a row without one good step"):
        rollout.collect(20)


def test_building_that_fails_in_one_process_ends_the_others_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    def one_fails(counter: Any) -> Scripted:
        number = int(counter.read_text()) + 1
        counter.write_text(str(number))
        if number == 1:
            raise ValueError("no display")
        return Scripted()

    with tempfile.TemporaryDirectory() as directory:
        counter = Path(directory) / "counter"
        counter.write_text("0")
        with pytest.raises(ValueError, match="no display"):
            SubprocessVector(partial(one_fails, counter), 2)
    assert capfd.readouterr().err == ""

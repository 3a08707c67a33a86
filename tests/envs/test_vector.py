"""Our vector environments return what Gymnasium's would, and check what environments give them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from oneiros.envs.vector.buffer import ObservationBuffer
from oneiros.envs.vector.fault import EnvironmentFault
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector
from sampler import sampler
from scripted import Scripted

VECTORS: list[Callable[..., Any]] = [SyncVector, SubprocessVector]


def assert_equal(one: Any, two: Any) -> None:
    if isinstance(one, dict):
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, tuple):
        for left, right in zip(one, two, strict=True):
            assert_equal(left, right)
    else:
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("make", VECTORS)
def test_they_return_what_gymnasiums_returns(make: Callable[..., Any]) -> None:
    theirs = SyncVectorEnv([sampler] * 3)
    ours = make(sampler, 3)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert_equal(theirs.reset(seed=5)[0], ours.reset(seed=5)[0])
    theirs.action_space.seed(0)
    for _ in range(15):
        actions = theirs.action_space.sample()
        expected, actual = theirs.step(actions), ours.step(actions)
        for one, two in zip(expected[:4], actual[:4], strict=True):
            assert_equal(one, two)
        if "a" in expected[4]:
            assert [info.get("a", 0) for info in actual[4]["each"]] == list(expected[4]["a"])
    ours.close()


@pytest.mark.parametrize("make", VECTORS)
def test_reset_masks_options_calls_and_attributes(make: Callable[..., Any]) -> None:
    env = make(Scripted, 3)
    env.reset()
    env.step(np.zeros(3, np.int64))
    batch, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert batch[:, 1:3].tolist() == [[0, 1], [1, 0], [0, 1]]
    env.set_attr("t", [7, 8, 9])
    assert env.get_attr("t") == (7, 8, 9)
    assert env.call("observe", 3)[1].tolist() == [0, 1, 8, 3]
    env.close()


def write(space: spaces.Space[Any], value: Any) -> Any:
    buffer = ObservationBuffer(space, 2)
    buffer.write(1, value)
    return buffer.batch


@pytest.mark.parametrize(
    "space, value, kind",
    [
        (spaces.Box(-1, 1, (2,), np.float32), np.array([0, np.nan]), "nan"),
        (spaces.Box(-1, 1, (2,), np.float32), np.array([np.inf, -np.inf]), "nan"),
        (spaces.Box(-1, 1, (2,), np.float32), np.zeros((2, 1)), "shape"),
        (spaces.Box(-1, 1, (2,), np.float32), 0.0, "shape"),
        (spaces.Box(-1, 1, (2,), np.float32), None, "shape"),
        (spaces.Box(0, 255, (2,), np.uint8), np.zeros(2, np.float32), "dtype"),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([3, 256]), "dtype"),
        (spaces.Discrete(3), 3, "range"),
        (spaces.Discrete(3, start=5), 4, "range"),
        (spaces.Discrete(3), 1.5, "dtype"),
        (spaces.Discrete(3), np.array([1]), "dtype"),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 3]), "range"),
        (spaces.MultiBinary(2), np.array([0, 2]), "range"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": 1}, "structure"),
        (spaces.Dict({"a": spaces.Discrete(2)}), 4, "structure"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), (1,), "structure"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")
def test_what_is_not_of_the_space_is_a_fault(space: spaces.Space[Any], value: Any, kind: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        write(space, value)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "space, value",
    [
        (spaces.Box(-1, 1, (2,), np.float32), [0.5, 1]),
        (spaces.Box(-1, 1, (2,), np.float32), np.array([0.5, 1], np.float64)),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), np.array([3e38, 3e38], np.float32)),
        (spaces.Box(0, 255, (2,), np.uint8), [3, 255]),
        (spaces.Box(-1, 1, (), np.float32), 0.5),
        (spaces.Discrete(3), np.int64(2)),
        (spaces.Discrete(3), np.array(2)),
        (spaces.Discrete(2), True),
        (spaces.MultiBinary(2), [True, False]),
        (spaces.MultiDiscrete([2, 3], start=[5, 0]), [6, 2]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_harmless_differences_are_converted(space: spaces.Space[Any], value: Any) -> None:
    np.testing.assert_array_equal(write(space, value)[1], np.asarray(value))


def test_processes_end_with_their_parent() -> None:
    code = (
        "import gymnasium, os, time\n"
        "from oneiros.envs.registry import make_vector\n"
        "env = make_vector('CartPole-v1', 2, 'async'); env.reset()\n"
        "print(*env.pids, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    """Whether the process runs (one that has ended, but was never waited for, does not)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_without_a_main_guard_may_use_processes(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium, numpy as np\n"
        "from oneiros.envs.registry import make_vector\n"
        "class Mine(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return np.full(1, 0.25, np.float32), {}\n"
        "gymnasium.register('Mine-v0', Mine)\n"
        "env = make_vector('Mine-v0', 2, 'async')\n"
        "print(env.reset()[0].sum())\n"
        "env.close()\n"
    )
    output = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert output.stdout.strip() == "0.5", output.stderr


def test_no_process_or_descriptor_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    env = SubprocessVector(Scripted, 2)
    pids, before = env.pids, descriptors()
    for _ in range(3):
        env._workers[0].process.kill()
        env.step(np.zeros(2, np.int64)) if env._ended[0] else env.reset()
    assert descriptors() == before
    env.close()
    assert descriptors() <= before - 3
    assert not any(alive(pid) for pid in pids)


def test_a_factory_that_raises_is_told_as_it_is() -> None:
    def broken() -> Any:
        raise ValueError("no such level: 7")

    for make in VECTORS:
        with pytest.raises(ValueError, match="no such level: 7"):
            make(broken, 2)


def test_replaced_processes_are_seeded_anew_but_the_same_way_each_time() -> None:
    def run() -> Any:
        env = SubprocessVector(partial(gymnasium.make, "CartPole-v1"), 1, seeds=[3])
        first = env.reset()[0].copy()
        env._workers[0].process.kill()
        second = env.step(np.zeros(1, np.int64))[0].copy()
        env.close()
        return first, second

    (one, two), (same, too) = run(), run()
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(two, too)
    assert not np.array_equal(one, two)


class SickOnce(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Of two that are built, the first neither steps nor resets after its first reset."""

    built = 0

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        SickOnce.built += 1
        self.sick, self.resets = SickOnce.built == 1, 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        if self.sick and self.resets > 1:
            raise RuntimeError("sick")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        if self.sick:
            raise RuntimeError("sick")
        return super().step(action)


def test_environments_built_anew_here_are_seeded_anew_but_the_same_way_each_time() -> None:
    def run() -> Any:
        SickOnce.built = 0
        env = SyncVector(SickOnce, 1, seeds=[3])
        first = env.reset()[0].copy()
        second = env.step(np.zeros(1, np.int64))[0].copy()
        env.close()
        assert SickOnce.built == 2
        return first, second

    (one, two), (same, too) = run(), run()
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(two, too)
    assert not np.array_equal(one, two)


def test_what_was_built_is_closed_where_another_cannot_be() -> None:
    class Remembering(Scripted):
        closed = False

        def close(self) -> None:
            self.closed = True

    built: list[Remembering] = []

    def factory() -> Remembering:
        if len(built) == 2:
            raise RuntimeError("no third game will start")
        built.append(Remembering())
        return built[-1]

    with pytest.raises(RuntimeError, match="no third game"):
        SyncVector(factory, 3)
    assert [env.closed for env in built] == [True, True]

"""Environments by name: found, refused with one sentence, and never in each other's way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.contract import (
    BrokenSuite,
    InvalidOption,
    MissingDependency,
    Requirement,
    UnknownEnvironment,
)
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector
from scripted import Toys


@pytest.fixture
def toys() -> Iterator[Toys]:
    suite = Toys()
    registry.register(suite)
    yield suite
    registry._registered.clear()


def install(path: Path, name: str, entry_points: str, **modules: str) -> None:
    """Lay out an installed distribution in ``path``."""
    info = path / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[oneiros.envs]\n{entry_points}\n")
    for module, text in modules.items():
        (path / f"{module}.py").write_text(text)


GOOD = """
import gymnasium
from oneiros.envs.contract import Requirement

class Robots:
    name = "robots"
    description = "of another package"
    requirement = Requirement("pip install {needs}", ("{needs}",))
    def tasks(self):
        return ["arm"]
    def make(self, task, **options):
        return gymnasium.make("CartPole-v1")
"""


def test_gymnasium_ids_with_and_without_the_suites_name() -> None:
    for env_id in ("CartPole-v1", "gym/CartPole-v1"):
        assert registry.make(env_id).unwrapped.spec is not None


@pytest.mark.parametrize(
    "env_id, message",
    [
        ("CartPol-v1", "unknown environment 'CartPol-v1': did you mean 'CartPole-v1'?"),
        ("CartPole-v9", "unknown environment 'CartPole-v9': did you mean 'CartPole-v1'?"),
        ("toys/scriptet", "unknown environment 'toys/scriptet': did you mean 'toys/scripted'?"),
        ("toy/scripted", "unknown environment 'toy/scripted': did you mean 'toys/scripted'?"),
        ("toys", "'toys' is a suite, not an environment: toys/scripted, toys/other"),
        ("memory/que-20", "unknown environment 'memory/que-20': did you mean 'memory/cue-20'?"),
        ("toys/nil", "unknown environment 'toys/nil': there are toys/scripted, toys/other"),
    ],
)
def test_unknown_names_suggest_the_nearest(toys: Toys, env_id: str, message: str) -> None:
    with pytest.raises(UnknownEnvironment) as caught:
        registry.make(env_id)
    assert str(caught.value) == message


def test_an_unknown_suite_is_answered_with_those_there_are(toys: Toys) -> None:
    for env_id in ("zzz/qqq", "qqq"):
        with pytest.raises(UnknownEnvironment, match=r"the suites atari.*, gym, .*, toys, .*'oneiros envs --tasks'"):
            registry.make(env_id)


def test_a_missing_package_is_named_with_what_installs_it(toys: Toys) -> None:
    toys.requirement = Requirement("pip install 'oneiros[toys]'", ("no_such_module", "json"))
    with pytest.raises(
        MissingDependency, match=r"the suite 'toys' needs no_such_module, which pip install 'oneiros\[toys\]' installs"
    ):
        registry.make("toys/scripted")
    status = next(suite for suite in registry.suites() if suite.name == "toys")
    assert not status.available and status.missing == ("no_such_module",)
    assert status.install == "pip install 'oneiros[toys]'"
    assert status.tasks == ("scripted", "other")


def test_suites_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "a", "good", "robots = robots_pkg:Robots", robots_pkg=GOOD.format(needs="json"))
    install(tmp_path / "b", "bad", "ruins = ruins_pkg:SUITE", ruins_pkg="raise RuntimeError('half installed')")
    install(tmp_path / "c", "odd", "oddity = oddity_pkg:SUITE", oddity_pkg="SUITE = 3")
    for folder in "abc":
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert registry.make("robots/arm").observation_space.shape == (4,)
    assert registry.make("CartPole-v1") is not None
    status = {suite.name: suite for suite in registry.suites()}
    assert status["robots"].available and status["robots"].source == "good"
    assert status["robots"].tasks == ("arm",)
    assert not status["ruins"].available and "half installed" in status["ruins"].error
    assert "lacks name, description" in status["oddity"].error
    with pytest.raises(BrokenSuite, match="the suite 'ruins' of bad cannot be loaded: RuntimeError: half installed"):
        registry.make("ruins/any")
    with pytest.raises(UnknownEnvironment, match="did you mean 'robots/arm'"):
        registry.make("robot/arm")


def test_two_packages_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        install(tmp_path / name, name, f"robots = {name}_pkg:Robots", **{f"{name}_pkg": GOOD.format(needs="json")})
        monkeypatch.syspath_prepend(str(tmp_path / name))
    with pytest.raises(BrokenSuite, match="'robots' is provided by both one and two"):
        registry.make("robots/arm")
    assert registry.make("CartPole-v1") is not None


def test_our_own_suites_all_load() -> None:
    status = {suite.name: suite for suite in registry.suites()}
    assert {"gym", "dmc", "memory", "pixel"} <= status.keys()
    for name in ("gym", "dmc", "memory", "pixel"):
        assert not status[name].error and status[name].tasks and status[name].source == "oneiros"


def test_listing_suites_imports_nothing_heavy() -> None:
    code = (
        "import sys; from oneiros.envs import registry; registry.suites();"
        "print([name for name in ('torch', 'ray', 'dm_control', 'mujoco', 'crafter') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize("vectorization, cls", [("sync", SyncVector), ("async", SubprocessVector)])
def test_vectors(toys: Toys, vectorization: Any, cls: type) -> None:
    env = registry.make_vector("toys/scripted", 3, vectorization, time_limit=2, number=6)
    assert isinstance(env, cls) and env.num_envs == 3
    batch, _ = env.reset()
    assert (batch[:, 0] == 6).all()
    for _ in range(2):
        _, _, terminated, truncated, _ = env.step(np.zeros(3, np.int64))
    assert truncated.all() and not terminated.any()
    env.close()


def test_seeds_differ_between_copies_and_between_neighbouring_seeds() -> None:
    seeds = [registry.env_seeds(seed, 8) for seed in range(20)]
    assert len({one for eight in seeds for one in eight}) == 160
    env = registry.make_vector("CartPole-v1", 4, seed=3)
    first, _ = env.reset()
    assert len({tuple(row) for row in first.tolist()}) == 4
    again, _ = registry.make_vector("CartPole-v1", 4, seed=3).reset()
    np.testing.assert_array_equal(first, again)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidOption, match="at least 1, not 0"):
        registry.make_vector("CartPole-v1", 0)
    with pytest.raises(InvalidOption, match="sync or async, not 'threads'"):
        registry.make_vector("CartPole-v1", 1, "threads")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="CartPole-v1 takes no option 'speed': there are action_repeat"):
        registry.make("CartPole-v1", speed=3)
    with pytest.raises(UnknownEnvironment):
        registry.make_vector("CartPol-v1", 2, "async")
    with pytest.raises(InvalidOption, match="memory/cue-20 takes no option 'speed'"):
        registry.make_vector("memory/cue-20", 2, "async", speed=3)

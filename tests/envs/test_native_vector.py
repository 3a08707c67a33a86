"""Suites whose environments step together: what the registry hands on, and that the rollout loop can use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from counting_policy import CountingPolicy  # type: ignore[import-not-found]
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption, MissingDependency, Requirement
from oneiros.envs.craftax_suite import SUITE
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.platform.rollout import Rollout
from together import Counters, Together  # type: ignore[import-not-found]


@pytest.fixture
def suite() -> Iterator[None]:
    registry.register(Together())
    yield
    del registry._registered["together"]


def test_a_suite_that_steps_together_makes_its_own_vector(suite: None) -> None:
    vector = registry.make_vector("together/count", 3, "sync", seed=1)
    assert isinstance(vector, Counters)
    assert vector.seeds == registry.env_seeds(1, 3)
    with pytest.raises(InvalidOption, match="'grayscale'"):
        registry.make_vector("together/count", 3, grayscale=True)
    apart = registry.make_vector("together/count", 1, "async", seed=1)
    try:
        assert isinstance(apart, SubprocessVector)
    finally:
        apart.close()


def test_the_rollout_loop_uses_it(suite: None) -> None:
    rollout = Rollout(registry.make_vector("together/count", 2, "sync", seed=1), CountingPolicy(spaces.Discrete(3)))
    try:
        chunk = rollout.collect(8)
    finally:
        rollout.close()
    # Two and three steps an episode, each with a row for its last observation.
    assert chunk.rows["obs"][:, :, 0].tolist() == [[0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 1, 2, 3]]
    assert chunk.rows["is_first"][0].tolist() == [True, False, False] * 2 + [True, False]
    assert chunk.rows["is_terminal"][1].tolist() == [False, False, False, True] * 2
    assert chunk.rows["reward"][0].tolist() == [0, 1, 1] * 2 + [0, 1]
    # The last one's end is the row that is next.
    episodes = rollout.episodes()
    assert [episode.length for episode in episodes] == [2, 3, 2, 3, 2]
    assert [episode.extras["count"] for episode in episodes] == [2, 3, 2, 3, 2]


def test_what_is_missing_for_craftax_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SUITE, "requirement", Requirement("pip install 'oneiros[craftax]'", ("craftax_is_not_here",)))
    for make in (registry.make, lambda env_id: registry.make_vector(env_id, 2)):
        with pytest.raises(MissingDependency, match=r"craftax_is_not_here.*oneiros\[craftax\]"):
            make("craftax/symbolic")


@pytest.mark.parametrize(
    "task, options",
    [
        ("symbolic", {"size": 64}),
        ("symbolic", {"colour": 1}),
        ("pixels", {"action_repeat": 2}),
        ("pixels", {"size": 0}),
    ],
)
def test_options_that_craftax_lacks_are_refused_before_anything_is_compiled(task: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=r"size|colour|action_repeat"):
        SUITE.make_vector(task, 2, None, **options)

"""Craftax itself, where it is installed. Compiling it takes minutes the first time; a cache keeps what was compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from counting_policy import CountingPolicy  # type: ignore[import-not-found]
from oneiros.envs import registry
from oneiros.envs.craftax_suite import SUITE
from oneiros.envs.craftax_vector import LOG
from oneiros.platform.rollout import Rollout

pytestmark = [
    pytest.mark.skipif(bool(SUITE.requirement.missing()), reason=f"needs Craftax: {SUITE.requirement.install}"),
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]
ENVS, LENGTH = 3, 12


@pytest.fixture(scope="module")
def vector() -> Iterator[Any]:
    made = registry.make_vector("craftax/symbolic", ENVS, "sync", seed=0, time_limit=LENGTH)
    yield made
    made.close()


def play(vector: Any, steps: int, seeds: list[int]) -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    seen = [(vector.reset(seed=seeds)[0].copy(), None, None, None)]
    for _ in range(steps):
        observation, rewards, terminated, truncated, _ = vector.step(rng.integers(43, size=ENVS))
        seen.append((observation.copy(), rewards.copy(), terminated.copy(), truncated.copy()))
    return seen


def test_observations_are_in_their_space(vector: Any) -> None:
    observation, infos = vector.reset(seed=1)
    assert observation.shape == (ENVS, 8268) and observation.dtype == np.float32
    assert vector.observation_space.contains(observation) and np.isfinite(observation).all()
    assert vector.single_action_space.n == 43 and infos["each"] == [{}] * ENVS
    assert not np.array_equal(observation[0], observation[1])


def test_the_limit_truncates_and_the_step_after_begins_a_new_world(vector: Any) -> None:
    first = vector.reset(seed=1)[0].copy()
    for step in range(1, LENGTH + 1):
        _, _, terminated, truncated, infos = vector.step(np.zeros(ENVS, np.int64))
        assert not terminated.any() and truncated.all() == (step == LENGTH)
    assert all(sum(key.startswith(LOG) for key in info) == 67 for info in infos["each"])
    observation, rewards, terminated, truncated, _ = vector.step(np.zeros(ENVS, np.int64))
    assert not rewards.any() and not terminated.any() and not truncated.any()
    assert not np.array_equal(observation, first)
    assert not vector.step(np.zeros(ENVS, np.int64))[3].any()


def test_a_seed_says_everything_whatever_the_others_do(vector: Any) -> None:
    first, again = (play(vector, 2 * LENGTH, [5, 6, 7]) for _ in range(2))
    assert all(
        np.array_equal(a, b)
        for one, two in zip(first, again, strict=True)
        for a, b in zip(one, two, strict=True)
        if a is not None
    )
    other = play(vector, 2 * LENGTH, [8, 6, 9])
    assert all(np.array_equal(one[0][1], two[0][1]) for one, two in zip(first, other, strict=True))
    assert not np.array_equal(first[0][0][0], other[0][0][0])


def test_only_those_that_are_named_are_reset(vector: Any) -> None:
    vector.reset(seed=1)
    before = vector.step(np.full(ENVS, 2))[0].copy()
    after, _ = vector.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(before[[0, 2]], after[[0, 2]]) and not np.array_equal(before[1], after[1])


def test_the_rollout_loop_uses_it(vector: Any) -> None:
    rollout = Rollout(vector, CountingPolicy(vector.single_action_space))
    rows = rollout.collect(LENGTH + 3).rows
    assert rows["obs"].shape == (ENVS, LENGTH + 3, 8268)
    assert np.flatnonzero(rows["is_first"][0]).tolist() == [0, LENGTH + 1]
    assert np.flatnonzero(rows["is_last"][0]).tolist() == [LENGTH]
    assert [episode.length for episode in rollout.episodes()] == [LENGTH] * ENVS


def test_pictures() -> None:
    env = registry.make("craftax/pixels", size=64, render_mode="rgb_array", time_limit=3)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and observation.shape == (64, 64, 3)
    assert observation.std() > 10
    assert np.array_equal(env.render(), observation)
    outcomes = [env.step(0) for _ in range(3)]
    assert [outcome[3] for outcome in outcomes] == [False, False, True]
    assert "log_achievement_collect_wood" in outcomes[-1][4]

"""Rows say what happened: alignment, endings, actions, episodes, streams, determinism, resuming."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from counting_policy import CountingPolicy
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from oneiros.envs.registry import make_vector
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.rollout import Chunk, PolicyFault, Rollout
from scripted import LENGTHS, Scripted

Make = Callable[..., Any]
VECTORS: dict[str, Make] = {
    "ours": lambda factory, n: SyncVector(factory, n),
    "processes": lambda factory, n: SubprocessVector(factory, n),
    "gymnasium": lambda factory, n: SyncVectorEnv([factory] * n),
    "gymnasium-async": lambda factory, n: AsyncVectorEnv([factory] * n),
}
DISCRETE = spaces.Discrete(4)


def collect(rollout: Rollout, pieces: list[int]) -> Chunk:
    """Chunks of the given lengths, joined in time."""
    chunks = [rollout.collect(steps) for steps in pieces]
    rows = {key: np.concatenate([chunk.rows[key] for chunk in chunks], axis=1) for key in chunks[0].rows}
    assert all((chunk.streams == chunks[0].streams).all() for chunk in chunks)
    return Chunk(rows, chunks[0].streams, sum(chunk.env_steps for chunk in chunks), chunks[-1].policy_version)


@pytest.mark.parametrize("vector", VECTORS)
def test_rows_are_aligned(vector: str) -> None:
    env = VECTORS[vector](Scripted, 3)
    rollout = Rollout(env, CountingPolicy(DISCRETE), streams=7)
    chunk = collect(rollout, [1, 6, 2, 31])
    rollout.close()
    rows = chunk.rows
    assert list(chunk.streams) == [7, 8, 9]
    assert rows["obs"].shape == (3, 40, 4) and rows["action"].shape == (3, 40)
    for i in range(3):
        episode, t = 0, 0
        for row in range(40):
            length = LENGTHS[episode % len(LENGTHS)]
            _, seen_episode, seen_t, last_action = rows["obs"][i, row]
            assert (seen_episode, seen_t) == (episode, t)
            # The action executed before this observation is the one in the row before.
            assert last_action == (-1 if t == 0 else rows["action"][i, row - 1])
            assert rows["reward"][i, row] == (0 if t == 0 else 10 * episode + t)
            assert rows["is_first"][i, row] == (t == 0)
            assert rows["is_last"][i, row] == (t == length)
            assert rows["is_terminal"][i, row] == (t == length and episode % 2 == 0)
            assert rows["action"][i, row] == (0 if t == length else t % 4)
            assert tuple(rows["latent/count"][i, row]) == (t, -t)
            episode, t = (episode + 1, 0) if t == length else (episode, t + 1)
    assert chunk.env_steps == np.count_nonzero(~rows["is_last"]) == rollout.env_steps


def test_an_episode_that_terminates_at_its_time_limit_is_terminal() -> None:
    rollout = Rollout(SyncVector(partial(Scripted, both=True), 1), CountingPolicy(DISCRETE))
    rows = rollout.collect(20).rows
    assert rows["is_last"].sum() == 4
    assert (rows["is_terminal"] == rows["is_last"]).all()


@pytest.mark.parametrize("vector", ["ours", "processes", "gymnasium"])
def test_episodes_are_counted(vector: str) -> None:
    env = VECTORS[vector](Scripted, 2)
    rollout = Rollout(env, CountingPolicy(DISCRETE))
    rollout.collect(12)
    episodes = rollout.episodes()
    rollout.close()
    assert [(e.slot, e.length, e.score, e.terminated) for e in episodes if e.slot == 0] == [
        (0, 3, 6.0, True),
        (0, 5, 65.0, False),
        (0, 1, 21.0, True),
    ]
    assert [dict(e.extras) for e in episodes if e.slot == 1] == [{"total": 3.0}, {"total": 5.0}, {"total": 1.0}]
    assert rollout.episodes() == []


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 10.0), (-2.0, 6.0)])
def test_the_stored_box_action_is_the_one_executed(low: float, high: float) -> None:
    box = spaces.Box(low, high, (1,), np.float64)
    policy = CountingPolicy(box, scale=5.0)  # 0, 0.5, 1.0, 1.5, ...: clipped from the fourth step on
    rows = Rollout(SyncVector(partial(Scripted, box), 1), policy).collect(9).rows
    stored, executed = rows["action"][0, :, 0], rows["obs"][0, :, 3]
    assert stored.dtype == np.float32
    assert list(stored) == [0, 0.5, 1.0, 0, 0, 0.5, 1.0, 1.0, 1.0]  # zeros where the episode of 3 steps ended
    for row in (1, 2, 3, 5, 6, 7, 8):
        assert executed[row] == pytest.approx(low + (stored[row - 1] + 1) / 2 * (high - low))


def test_discrete_actions_count_from_the_spaces_start() -> None:
    space = spaces.Discrete(4, start=10)
    rows = Rollout(SyncVector(partial(Scripted, space), 1), CountingPolicy(space)).collect(4).rows
    assert list(rows["action"][0]) == [0, 1, 2, 0]
    assert list(rows["obs"][0, :, 3]) == [-1, 10, 11, 12]


def test_nested_actions_reach_the_environment_and_the_rows() -> None:
    space = spaces.Dict({"aim": spaces.Box(0.0, 4.0, (2,), np.float32), "fire": spaces.MultiBinary(3)})

    class Nested(Scripted):
        def step(self, action: Any) -> Any:
            assert space.contains(action)
            return super().step(action["aim"])

    rollout = Rollout(SyncVector(partial(Nested, space), 2), CountingPolicy(space, scale=1.0), random_steps=20)
    rows = rollout.collect(20).rows
    assert rollout.metrics().keys() == {"env_steps"}
    assert rows["action/aim"].shape == (2, 20, 2) and rows["action/fire"].shape == (2, 20, 3)


def test_random_steps_do_not_ask_the_policy_and_end_on_time() -> None:
    policy = CountingPolicy(DISCRETE)
    rollout = Rollout(SyncVector(Scripted, 2), policy, random_steps=20, seed=3)
    rows = rollout.collect(10).rows
    assert policy.modes == []
    assert len(set(rows["action"][~rows["is_last"]])) == 4
    assert (rows["action"][rows["is_last"]] == 0).all()
    rollout.collect(10)
    assert policy.modes == ["train"] * 7  # 13 rows of 2 environments hold the first 20 policy steps


def test_latents_count_only_in_episodes_that_the_policy_saw_begin() -> None:
    rollout = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE), random_steps=12, seed=3)
    rows = rollout.collect(7).rows  # 3 steps and an ending, then 3 of 5 steps: the last of the random ones
    assert not rows["latent_valid"].any()
    state = rollout.state_dict()
    rows = rollout.collect(9).rows
    # What the policy makes of the rest of that episode is not what it would, had it seen all of it.
    assert rows["latent/count"].any(axis=(0, 2))[1]
    assert rows["latent_valid"].tolist() == 2 * [3 * [False] + 6 * [True]]
    resumed = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE))
    resumed.load_state_dict(state)
    assert resumed.collect(9).rows["latent_valid"].all(), "new episodes, seen from their beginning"


def test_random_steps_honour_an_action_mask() -> None:
    class Masked(gymnasium.Env[Any, Any]):
        observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(6), "x": spaces.Box(0, 1, (1,))})
        action_space = spaces.Discrete(6)

        def observe(self) -> Any:
            self.mask = np.zeros(6, np.int8)
            self.mask[self.np_random.choice(6, 2, replace=False)] = 1
            return {"action_mask": self.mask, "x": np.zeros(1, np.float32)}

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return self.observe(), {}

        def step(self, action: Any) -> Any:
            assert self.mask[action] == 1
            return self.observe(), 0.0, False, False, {}

    rollout = Rollout(SyncVector(Masked, 4, seeds=[1, 2, 3, 4]), CountingPolicy(DISCRETE), random_steps=400)
    rollout.collect(100)
    assert "faults/raised" not in rollout.metrics()


def test_new_weights_and_their_version() -> None:
    policy = CountingPolicy(spaces.Box(-1, 1, (1,), np.float32))
    rollout = Rollout(SyncVector(partial(Scripted, spaces.Box(-1, 1, (1,), np.float32)), 1), policy)
    assert rollout.collect(2).policy_version == 0
    policy.load_policy_state({"scale": torch.tensor(3.0)})
    rollout.policy_version = 4
    chunk = rollout.collect(1)
    assert chunk.policy_version == 4
    assert chunk.rows["action"][0, 0, 0] == pytest.approx(0.6)


def test_a_policy_that_returns_nan_is_named() -> None:
    space = spaces.Box(-1, 1, (1,), np.float32)
    rollout = Rollout(SyncVector(partial(Scripted, space), 1), CountingPolicy(space, scale=float("nan")))
    with pytest.raises(PolicyFault, match="'action' with NaN"):
        rollout.collect(1)


def test_same_step_autoreset_is_refused() -> None:
    env = SyncVectorEnv([Scripted], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="next-step autoreset"):
        Rollout(env, CountingPolicy(DISCRETE))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_deterministic_under_a_seed(vectorization: Any) -> None:
    def run(seed: int) -> Any:
        env = make_vector("CartPole-v1", 3, vectorization, seed)
        rollout = Rollout(env, CountingPolicy(spaces.Discrete(2)), random_steps=10_000, seed=seed)
        rows = rollout.collect(120).rows
        rollout.close()
        return rows

    one, two, other = run(5), run(5), run(6)
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
    assert not np.array_equal(one["obs"], other["obs"])
    assert not np.array_equal(one["obs"][0], one["obs"][1])


@pytest.mark.parametrize(
    "env_id, vectorization",
    [
        *((env_id, "sync") for env_id in ("CartPole-v1", "Pendulum-v1", "memory/cue-20", "memory/tmaze-5")),
        ("CartPole-v1", "async"),
        ("pixel/catch", "async"),
    ],
)
def test_resuming_is_exact_where_environments_say_their_state(env_id: str, vectorization: Any) -> None:
    options = {"time_limit": 37} if env_id == "CartPole-v1" else {}

    def rollout(seed: int) -> Rollout:
        env = make_vector(env_id, 2, vectorization, seed, **options)
        return Rollout(env, CountingPolicy(env.single_action_space), random_steps=130, seed=seed, streams=4)

    original = rollout(seed=1)
    original.collect(55)
    original.episodes()
    state = original.state_dict()
    expected = original.collect(60)
    resumed = rollout(seed=2)
    resumed.load_state_dict(state)
    actual = resumed.collect(60)
    for key in expected.rows:
        np.testing.assert_array_equal(expected.rows[key], actual.rows[key], err_msg=key)
    np.testing.assert_array_equal(expected.streams, actual.streams)
    assert original.episodes() == resumed.episodes()
    assert original.env_steps == resumed.env_steps
    original.close()
    resumed.close()


def test_resuming_begins_new_streams_where_states_are_unknown() -> None:
    original = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE), streams=4, seed=1)
    original.collect(2)
    state = original.state_dict()
    assert state["environments"] is None
    resumed = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE), streams=4)
    resumed.load_state_dict(state)
    chunk = resumed.collect(5)
    assert set(chunk.streams).isdisjoint({4, 5})
    assert chunk.rows["is_first"][:, 0].all()
    assert resumed.env_steps == 4 + chunk.env_steps
    twice = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE), streams=4)
    twice.load_state_dict(resumed.state_dict())
    assert set(twice.streams).isdisjoint({4, 5, *chunk.streams})


def test_what_is_saved_after_a_collection_that_raised_goes_on_in_new_streams() -> None:
    def rollout() -> Rollout:
        return Rollout(make_vector("CartPole-v1", 2, "sync", 1), CountingPolicy(spaces.Discrete(2)), streams=4)

    broken = rollout()
    chunk = broken.collect(3)
    assert broken.state_dict()["environments"] is not None
    broken.policy.act = None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        broken.collect(3)
    state = broken.state_dict()
    assert state["environments"] is None
    resumed = rollout()
    resumed.load_state_dict(state)
    assert set(resumed.streams).isdisjoint(chunk.streams) and resumed.env_steps == chunk.env_steps


def test_the_state_of_another_number_of_environments_is_refused() -> None:
    state = Rollout(SyncVector(Scripted, 2), CountingPolicy(DISCRETE)).state_dict()
    with pytest.raises(ValueError, match="has 2 environments, this one 3"):
        Rollout(SyncVector(Scripted, 3), CountingPolicy(DISCRETE)).load_state_dict(state)

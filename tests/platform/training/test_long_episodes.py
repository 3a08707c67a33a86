"""Episodes of 36,000 steps: what the policy remembers is carried from chunk to chunk exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.algorithms.contract import Field
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.replay import Replay
from oneiros.platform.rollout import Chunk, Rollout

STEPS = 36_000
FACTOR, SHIFT = 6364136223846793005, 33
CAPACITY, CHUNK_ROWS = 6_000, 512


class Walk(gymnasium.Env[Any, Any]):
    """Observation: (episode, step, last action); truncated after so many steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, steps: int = STEPS) -> None:
        self.steps, self.episode, self.t = steps, -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0, -1], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.array([self.episode, self.t, action], np.float32), 0.0, False, self.t >= self.steps, {}

    def get_state(self) -> Mapping[str, Any]:
        return {"episode": self.episode, "t": self.t}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.episode, self.t = int(state["episode"]), int(state["t"])


class Hashing:
    """Remembers a hash of all that it has seen since the episode began, and acts by it: one slip changes everything."""

    latent_fields: Mapping[str, Field] = {"hash": Field((), np.dtype(np.int64))}

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {"hash": torch.zeros(batch, dtype=torch.int64)}

    def act(self, obs: Any, is_first: Any, state: Any, mode: str = "train") -> Any:
        seen = (obs["obs"].long() * torch.tensor([7919, 104729, 1299709])).sum(-1)
        value = state["hash"].masked_fill(is_first, 0) * FACTOR + seen + 1
        return {"action": (value >> SHIFT) % 4}, {"hash": value}, {"hash": value}

    def load_policy_state(self, tensors: Any) -> None:
        raise NotImplementedError


def unbroken(episode: int) -> NDArray[np.int64]:
    """The hash after each observation of an episode, ``(STEPS + 1,)``, without vectors, chunks or replay."""
    value, action, hashes = 0, -1, []
    for t in range(STEPS + 1):
        value = (value * FACTOR + 7919 * episode + 104729 * t + 1299709 * action + 1) % 2**64
        signed = value - 2**64 if value >= 2**63 else value
        action = (signed >> SHIFT) % 4
        hashes.append(signed)
    return np.array(hashes, np.int64)


def new_replay() -> Replay:
    fields = {
        "obs": Field((3,), np.dtype(np.float32)),
        "action": Field((), np.dtype(np.int64)),
        "reward": Field((), np.dtype(np.float32)),
        **{flag: Field((), np.dtype(bool)) for flag in ("is_first", "is_last", "is_terminal")},
        "latent/hash": Field((), np.dtype(np.int64)),
    }
    return Replay(fields, capacity=CAPACITY, length=32, chunk_rows=CHUNK_ROWS)


def test_latents_of_a_long_episode_are_those_of_one_unbroken_pass(tmp_path: Path) -> None:
    """Over chunks of odd lengths, chunks of the replay, eviction of the episode's beginning, and a stop in between."""
    expected = [unbroken(0), unbroken(1)]
    rng = np.random.default_rng(0)
    rollout, replay = Rollout(SyncVector(Walk, 2), Hashing()), new_replay()
    rows, checked, stopped, full, most = 0, 0, False, 0.0, 0.0
    while rows < STEPS + 200:
        if rows > STEPS // 2 and not stopped:
            stopped = True
            state = rollout.state_dict()
            replay.save(tmp_path / "replay")
            rollout.close()
            rollout, replay = Rollout(SyncVector(Walk, 2), Hashing()), new_replay()
            rollout.load_state_dict(state)
            replay.load(tmp_path / "replay")
        steps = int(rng.choice([1, 7, 64, 500]))
        chunk = rollout.collect(steps)
        for env in range(2):
            at = np.arange(rows, rows + steps)
            episode, t = at // (STEPS + 1), at % (STEPS + 1)
            wanted = np.where(episode == 0, expected[0][t], expected[1][t])
            np.testing.assert_array_equal(chunk.rows["latent/hash"][env], wanted)
        replay.add(chunk)
        rows += steps
        assert len(replay) <= CAPACITY
        memory = replay.stats()["memory_bytes"]
        full, most = (memory, memory) if 2 * rows < CAPACITY + CHUNK_ROWS else (full, max(most, memory))
        if replay.ready:
            batch = replay.sample()
            assert batch["latent_valid"].all()
            episode, t = batch["obs"][:, 0, 0].astype(int), batch["obs"][:, 0, 1].astype(int)
            begun = np.where(episode == 0, expected[0][t], expected[1][t])
            np.testing.assert_array_equal(batch["latent/hash"].reshape(len(begun), -1)[:, 0], begun)
            checked += int((t > CAPACITY).sum())
    rollout.close()
    assert checked > 1000
    assert most <= 1.1 * full


def acting(agent: DreamerV3, pieces: list[int]) -> Chunk:
    """Rows of an agent that acts in two environments, in chunks of the given lengths, joined in time."""
    rollout = Rollout(SyncVector(lambda: Walk(90), 2), agent)
    chunks = [rollout.collect(steps) for steps in pieces]
    rollout.close()
    rows = {key: np.concatenate([chunk.rows[key] for chunk in chunks], 1) for key in chunks[0].rows}
    return Chunk(rows, chunks[0].streams, sum(chunk.env_steps for chunk in chunks), 0)


@pytest.fixture
def agent() -> Any:
    tiny = {"size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16}
    env = Walk()
    flat = flatten_observation_space(env.observation_space), flatten_action_space(env.action_space)
    return lambda: DreamerV3(Hyperparameters(**tiny), *flat, seed=3, role="policy")  # type: ignore[arg-type]


def test_the_agent_s_own_latents_do_not_depend_on_where_chunks_end(agent: Any) -> None:
    whole, pieces = acting(agent(), [200]), acting(agent(), [1, 63, 2, 5, 64, 64, 1])
    for key, values in whole.rows.items():
        np.testing.assert_array_equal(values, pieces.rows[key], err_msg=key)
    # And they are what one pass over the recorded rows gives, given the actions that were executed.
    again, state = agent(), agent().initial_state(2)
    for t in range(200):
        obs = {"obs": torch.from_numpy(whole.rows["obs"][:, t])}
        action, state, latents = again.act(obs, torch.from_numpy(whole.rows["is_first"][:, t]), state)
        going_on = ~whole.rows["is_last"][:, t]
        np.testing.assert_array_equal(action["action"].numpy()[going_on], whole.rows["action"][going_on, t])
        for key, values in latents.items():
            np.testing.assert_array_equal(values.numpy(), whole.rows[f"latent/{key}"][:, t], err_msg=f"{key} {t}")
    assert len(np.unique(whole.rows["latent/stoch"], axis=1)) > 1 and whole.rows["is_first"].sum() == 6

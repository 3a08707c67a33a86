"""Several agents through rollout, replay and engine: joint steps stay aligned, and acting stays ignorant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from oneiros.algorithms.contract import Field
from oneiros.envs.multiagent import joint
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.envs.vector.sync import SyncVector
from oneiros.platform.config import RunConfig
from oneiros.platform.replay import Replay
from oneiros.platform.rollout import Rollout, evaluate
from oneiros.platform.training.agents import row_fields
from oneiros.platform.training.engine import open_engine

TINY = {
    **{"size": "1m", "deter": 16, "hidden": 8, "groups": 4, "classes": 4, "units": 8, "depth": 2, "bins": 31},
    **{"batch_size": 2, "batch_length": 8, "imagination_length": 3, "imagination_starts": 4},
}
BELIEF = {"context": 8, "channel": {"tokens": 1, "vocabulary": 4}}


class Echo:
    """Every agent sees the time, the episode, what it did last, and a number of its own; episodes last ``length``."""

    possible_agents = ("a", "b", "c")

    def __init__(self, length: int) -> None:
        self.length, self.episode = length, -1
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(-1, 10_000, (4,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete({"a": 5, "b": 7, "c": 9}[agent])

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time, self.episode = list(self.possible_agents), 0, self.episode + 1
        return self._see(dict.fromkeys(self.possible_agents, -1)), {}

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, ...]:
        self.time += 1
        over = dict.fromkeys(self.possible_agents, self.time == self.length)
        if self.time == self.length:
            self.agents = []
        rewards = {name: float(actions[name]) for name in self.possible_agents}
        return self._see(actions), rewards, dict.fromkeys(over, False), over, {}

    def _see(self, did: Mapping[str, Any]) -> dict[str, Any]:
        return {n: np.array([self.time, self.episode, did[n], i]) for i, n in enumerate(self.possible_agents)}

    def close(self) -> None:
        pass


class Ignorant:
    """A policy that acts by chance and remembers which keys it was ever shown."""

    latent_fields: Mapping[str, Field] = {"time": Field((3,), np.dtype(np.float32))}

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self.rng = np.random.default_rng(0)

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {}

    def act(self, obs: Any, is_first: Any, state: Any, mode: Any = "train") -> Any:
        self.shown |= obs.keys()
        action = {
            f"action/{n}": torch.from_numpy(self.rng.integers(high, size=len(is_first)))
            for n, high in {"a": 5, "b": 7, "c": 9}.items()
        }
        return action, state, {"time": torch.stack([obs[f"agent/{n}/obs"][:, 0] for n in "abc"], 1)}

    def load_policy_state(self, tensors: Any) -> None: ...


@given(
    num_envs=st.integers(1, 3),
    length=st.integers(1, 9),
    fragments=st.lists(st.integers(1, 7), min_size=4, max_size=12),
    window=st.integers(1, 6),
)
@settings(max_examples=15, deadline=None)
def test_joint_steps_are_stored_once_and_aligned(num_envs: int, length: int, fragments: list[int], window: int) -> None:
    env = SyncVector(lambda: joint(Echo(length)), num_envs, name="echo")
    policy = Ignorant()
    rollout = Rollout(env, policy)  # type: ignore[arg-type]
    obs, action = (
        flatten_observation_space(env.single_observation_space),
        flatten_action_space(env.single_action_space),
    )
    replay = Replay(row_fields(policy, obs, action), capacity=1000, length=window, context=1, batch=4)  # type: ignore[arg-type]
    steps = 0
    for fragment in fragments:
        replay.add(rollout.collect(fragment))
        steps += fragment
    assert len(replay) == steps * num_envs
    if not replay.ready:
        return
    rows = replay.sample()
    times = np.stack([rows[f"agent/{n}/obs"][..., 0] for n in "abc"], -1)
    episodes = np.stack([rows[f"agent/{n}/obs"][..., 1] for n in "abc"], -1)
    assert (times == times[..., :1]).all() and (episodes == episodes[..., :1]).all()
    assert (rows["latent/time"][:, 0] == times[:, 0]).all()
    assert [float(rows[f"agent/{n}/obs"][..., 3].mean()) for n in "abc"] == [0, 1, 2]
    goes_on = ~rows["is_last"][:, :-1]
    for name in "abc":
        did = rows[f"agent/{name}/obs"][:, 1:, 2]
        assert (did[goes_on] == rows[f"action/{name}"][:, :-1][goes_on]).all()
        assert (rows[f"training/{name}/reward"][:, 1:][goes_on] == did[goes_on]).all()


def test_what_only_training_may_know_is_in_the_rows_and_never_shown_to_a_policy() -> None:
    policy = Ignorant()
    rollout = Rollout(SyncVector(lambda: joint(Echo(3)), 2, name="echo"), policy)  # type: ignore[arg-type]
    rows = rollout.collect(5).rows
    assert "training/a/reward" in rows
    assert policy.shown == {f"agent/{n}/{k}" for n in "abc" for k in ("obs", "alive")}


def config(run_dir: Any = None, agent: str = "belief", **hyper: Any) -> RunConfig:
    return RunConfig(
        env="minds/boxes",
        agent=agent,
        engine="local",
        hyper={**TINY, **(BELIEF if agent == "belief" else {}), **hyper},
        num_envs_per_runner=2,
        train_ratio=4,
        learning_starts=40,
        random_steps=20,
        seed=3,
        run_dir=run_dir,
        replay={"capacity": 2000, "on_disk": False},
    )


@pytest.mark.parametrize("agent", ["belief", "dreamerv3"])
def test_a_run_that_is_saved_goes_on_as_if_it_had_not_been(agent: str, tmp_path: Any) -> None:
    """DreamerV3 takes joint rows, too: as one mind that sees everything and acts for all."""
    engines = [open_engine(config(agent=agent)) for _ in range(2)]
    for engine in engines:
        engine.step()
    engines[0].save(tmp_path / "checkpoint")
    engines[1].restore(tmp_path / "checkpoint")
    later = [engine.step() for engine in engines]
    same = [{k: v for k, v in metrics.items() if not k.endswith("_per_s")} for metrics in later]
    assert same[0] == same[1] and same[0]["updates"] > 5
    if agent == "dreamerv3":
        assert not [k for k in engines[0].agent.obs_space if k.startswith("training/")]  # type: ignore[attr-defined]
    for engine in engines:
        engine.close()


def test_an_evaluation_says_what_the_agents_believed() -> None:
    engine = open_engine(config())
    engine.step()
    result = engine.evaluate(4, seed=5)
    extras = result.metrics()
    assert extras["belief/sally/marble/chance_nll"] == pytest.approx(np.log(3), rel=1e-5)
    assert 0 <= extras["belief/anne/marble/accuracy"] <= 1
    assert extras["first_order/anne/marble_about_sally/nll"] >= extras["first_order/anne/marble_about_sally/floor"]
    assert 0 <= extras["first_order/anne/marble_about_sally/false_belief/share"] <= 1
    assert {f"intent/anne_about_sally/{k}" for k in ("accuracy", "marginal_accuracy", "last_action_accuracy")} <= set(
        extras
    )
    # 21 rows an episode, a message of two bits in each.
    assert extras["bits/anne/an_episode"] == 42
    engine.close()


def test_a_policy_without_beliefs_is_evaluated_as_ever() -> None:
    assert evaluate("CartPole-v1", _Left(), 2).extras == {}


class _Left:
    """Pushes left."""

    latent_fields: Mapping[str, Field] = {}

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {}

    def act(self, obs: Any, is_first: Any, state: Any, mode: Any = "train") -> Any:
        return {"action": torch.zeros(len(is_first), dtype=torch.int64)}, state, {}

    def load_policy_state(self, tensors: Any) -> None: ...

"""Evaluations: whole episodes, the same number from each environment, whatever their length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from counting_policy import CountingPolicy
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.contract import NOTHING, UnknownEnvironment
from oneiros.platform.rollout import evaluate
from oneiros.platform.rollout.loop import Rollout
from scripted import Scripted


class Bimodal(gymnasium.Env[Any, Any]):
    """Half the episodes last one step and pay 0, half last ten and pay 10."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(4)
    render_mode = "rgb_array"

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.length, self.t = (1, 10)[int(self.np_random.integers(2))], 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float(self.length == 10)
        info = {"log_long": float(self.length == 10)}
        return np.zeros(1, np.float32), reward, self.t >= self.length, False, info

    def render(self) -> Any:
        return np.full((8, 8, 3), self.t, np.uint8)


class Endless(Bimodal):
    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Suite:
    name = "evaluated"
    description = "for tests"
    requirement = NOTHING
    classes: dict[str, Any] = {"bimodal": Bimodal, "endless": Endless, "scripted": Scripted}  # noqa: RUF012

    def tasks(self) -> list[str]:
        return list(self.classes)

    def make(self, task: str, **options: Any) -> gymnasium.Env[Any, Any]:
        if task not in self.classes:
            raise UnknownEnvironment()
        env: gymnasium.Env[Any, Any] = self.classes[task](**options)
        return env


@pytest.fixture(autouse=True)
def suite() -> Iterator[None]:
    registry.register(Suite())
    yield
    registry._registered.clear()


def policy() -> CountingPolicy:
    return CountingPolicy(spaces.Discrete(4))


def test_short_episodes_are_not_counted_more_often() -> None:
    result = evaluate("evaluated/bimodal", policy(), 800, num_envs=16, seed=1)
    assert result.episodes == len(result.returns) == 800
    # Taking the first 800 to end would give a mean far below 5.
    assert abs(result.return_mean - 5) < 4 * 5 / np.sqrt(800)
    assert abs(result.length_mean - 5.5) < 4 * 4.5 / np.sqrt(800)
    assert result.return_std == pytest.approx(5, abs=0.1)
    assert result.extras["long"] == pytest.approx(result.return_mean / 10)


@pytest.mark.parametrize("episodes, num_envs", [(1, 8), (5, 2), (7, 3)])
def test_every_number_of_episodes(episodes: int, num_envs: int) -> None:
    result = evaluate("evaluated/bimodal", policy(), episodes, num_envs=num_envs)
    assert result.episodes == episodes == len(result.lengths)


def test_deterministic_under_a_seed_in_eval_mode() -> None:
    chosen = policy()
    one, two, other = (evaluate("evaluated/bimodal", chosen, 30, seed=seed) for seed in (1, 1, 2))
    assert one == two and one.returns != other.returns
    assert set(chosen.modes) == {"eval"}


def test_faulted_episodes_are_reported_and_not_counted() -> None:
    options = {"fault": "raised", "at": (1, 2)}
    result = evaluate("evaluated/scripted", policy(), 3, num_envs=1, env_options=options)
    assert result.faults == 1
    assert result.lengths == (3, 1, 4)


def test_recording_keeps_the_first_episode() -> None:
    result = evaluate("evaluated/bimodal", policy(), 4, num_envs=2, record=True)
    frames = result.frames
    assert frames is not None and frames.shape[1:] == (8, 8, 3)
    assert list(frames[:, 0, 0, 0]) == list(range(len(frames)))
    assert len(frames) - 1 in (1, 10)
    plain = evaluate("evaluated/bimodal", policy(), 4, num_envs=2)
    assert plain.frames is None and plain == result
    assert json.loads(json.dumps(result.summary()))["episodes"] == 4


def test_recording_what_cannot_be_drawn_gives_no_frames() -> None:
    result = evaluate("evaluated/scripted", policy(), 2, record=True)
    assert result.frames is None and result.episodes == 2


def test_recording_begins_anew_after_a_fault() -> None:
    class Faulty(Bimodal):
        faulted = False

        def step(self, action: Any) -> Any:
            if self.t == 4 and not Faulty.faulted:
                Faulty.faulted = True
                raise RuntimeError("on purpose")
            return super().step(action)

    Suite.classes["faulty"] = Faulty
    result = evaluate("evaluated/faulty", policy(), 2, num_envs=1, seed=1, record=True)
    assert result.faults == 1 and result.frames is not None
    assert list(result.frames[:, 0, 0, 0]) == list(range(result.lengths[0] + 1))


def test_an_episode_without_end_is_named() -> None:
    with pytest.raises(RuntimeError, match="evaluated/endless goes on after 50 steps: give it a time_limit"):
        evaluate("evaluated/endless", policy(), 2, longest_episode=50)
    result = evaluate("evaluated/endless", policy(), 2, env_options={"time_limit": 20, "seed": 3})
    assert result.returns == (20, 20)


def test_loop_overhead_is_small() -> None:
    """30 microseconds an env step are asked for; a machine under load gets three times that before this fails."""
    import time

    class Free(gymnasium.Env[Any, Any]):
        observation_space = spaces.Box(-1, 1, (24,), np.float32)
        action_space = spaces.Box(-1, 1, (6,), np.float32)
        zeros = np.zeros(24, np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return self.zeros, {}

        def step(self, action: Any) -> Any:
            return self.zeros, 0.0, False, False, {}

    class Constant(CountingPolicy):
        def act(self, obs: Any, is_first: Any, state: Any, mode: str = "train") -> Any:
            return {"action": torch.zeros(8, 6)}, state, {"count": torch.zeros(8, 2)}

    from oneiros.envs.vector.sync import SyncVector

    rollout = Rollout(SyncVector(Free, 8), Constant(Free.action_space))
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        chunk = rollout.collect(200)
        best = min(best, (time.perf_counter() - started) / chunk.env_steps)
    assert best < 90e-6

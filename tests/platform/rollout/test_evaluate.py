"""Evaluations: whole episodes, the same number from each environment, whatever their length."""

from __future__ import annotations

import json
import time
import weakref
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
from oneiros.envs.vector.fault import EnvironmentBroken
from oneiros.platform.rollout import evaluate
from oneiros.platform.rollout.loop import Rollout
from oneiros.platform.rollout.shares import count_shares, share_interval
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


class Long(Bimodal):
    """Lasts two thousand steps."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        self.length = 2000
        return observation, info

    def render(self) -> Any:
        return np.full((8, 8, 3), self.t % 256, np.uint8)


class Hopeless(Bimodal):
    """Raises in the third step of every episode."""

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t == 3:
            raise RuntimeError("broken on purpose")
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Suite:
    name = "evaluated"
    description = "for tests"
    requirement = NOTHING
    classes: dict[str, Any] = {  # noqa: RUF012
        "bimodal": Bimodal,
        "endless": Endless,
        "hopeless": Hopeless,
        "long": Long,
        "scripted": Scripted,
    }

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


def test_an_episode_that_its_environment_lost_lowers_no_mean() -> None:
    class Crashing(Bimodal):
        resets = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.resets += 1
            return super().reset(seed=seed)

        def step(self, action: Any) -> Any:
            if self.resets % 2:
                return np.zeros(1, np.float32), 0.0, False, True, {"episode_fault": "the game is gone"}
            return super().step(action)

    Suite.classes["crashing"] = Crashing
    result = evaluate("evaluated/crashing", policy(), 3, num_envs=1)
    assert (result.episodes, result.faults) == (3, 3) and set(result.returns) <= {0.0, 10.0}
    assert set(result.lengths) <= {1, 10} and len(result.lengths) == 3


def test_an_examiner_gets_the_rows_that_it_reads_and_no_others_are_kept() -> None:
    class Examiner(CountingPolicy):
        def reads(self, key: str) -> bool:
            return key in ("is_first", "reward")

        def examine(self, rows: Any) -> dict[str, float]:
            assert sorted(rows) == ["is_first", "reward"]
            return {"rows": float(rows["reward"].size)}

    result = evaluate("evaluated/bimodal", Examiner(spaces.Discrete(4)), 3, num_envs=1)
    assert result.extras["rows"] >= sum(result.lengths)


class Frames:
    """A film that keeps the number drawn in each frame, and counts how many frames are alive."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.alive = self.most_alive = 0

    def add(self, frame: Any) -> None:
        assert frame.shape == (8, 8, 3)
        self.numbers.append(int(frame[0, 0, 0]))
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(frame, self._gone)

    def restart(self) -> None:
        self.numbers.clear()

    def _gone(self) -> None:
        self.alive -= 1


def test_the_first_episode_is_filmed() -> None:
    film = Frames()
    result = evaluate("evaluated/bimodal", policy(), 4, num_envs=2, film=film)
    assert film.numbers == list(range(len(film.numbers)))
    assert len(film.numbers) - 1 in (1, 10)
    plain = evaluate("evaluated/bimodal", policy(), 4, num_envs=2)
    assert plain == result
    assert json.loads(json.dumps(result.summary()))["episodes"] == 4


def test_what_is_filmed_is_not_kept() -> None:
    film = Frames()
    evaluate("evaluated/long", policy(), 1, num_envs=1, film=film)
    assert film.numbers == [step % 256 for step in range(2001)]
    # A collector that is late may leave some more; two thousand would be all.
    assert film.most_alive < 100


def test_filming_what_cannot_be_drawn_gives_no_frames() -> None:
    film = Frames()
    result = evaluate("evaluated/scripted", policy(), 2, film=film)
    assert film.numbers == [] and result.episodes == 2


def test_a_film_begins_anew_after_a_fault() -> None:
    class Faulty(Bimodal):
        faulted = False

        def step(self, action: Any) -> Any:
            if self.t == 4 and not Faulty.faulted:
                Faulty.faulted = True
                raise RuntimeError("on purpose")
            return super().step(action)

    Suite.classes["faulty"] = Faulty
    film = Frames()
    result = evaluate("evaluated/faulty", policy(), 2, num_envs=1, seed=1, film=film)
    assert result.faults == 1
    assert film.numbers == list(range(result.lengths[0] + 1))


def test_what_episodes_say_yes_or_no_to_has_an_interval() -> None:
    result = evaluate("evaluated/bimodal", policy(), 40, num_envs=4, seed=3)
    long = sum(length == 10 for length in result.lengths)
    assert result.shares == {"long": long} and 0 < long < 40
    low, high = result.summary()["intervals"]["long"]
    assert 0 < low < result.extras["long"] < high < 1


@pytest.mark.parametrize(
    "count, of, low, high",
    [(0, 50, 0.0, 0.0714), (50, 50, 0.9286, 1.0), (17, 50, 0.2244, 0.4785), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_s_interval(count: int, of: int, low: float, high: float) -> None:
    assert share_interval(count, of) == pytest.approx((low, high), abs=1e-4)


def test_counts_are_no_shares() -> None:
    said = [{"log": 1.0, "steps": 3.0}, {"log": 0.0, "steps": 1.0, "diamond": 1.0}]
    assert count_shares(said) == {"log": 1, "diamond": 1}
    with pytest.raises(ValueError, match="0 of 0 is no share"):
        share_interval(0, 0)


def test_an_episode_without_end_is_named() -> None:
    with pytest.raises(RuntimeError, match="evaluated/endless goes on after 50 steps: give it a time_limit"):
        evaluate("evaluated/endless", policy(), 2, longest_episode=50)
    result = evaluate("evaluated/endless", policy(), 2, env_options={"time_limit": 20, "seed": 3})
    assert result.returns == (20, 20)


def test_an_environment_that_faults_in_every_episode_is_named() -> None:
    with pytest.raises(EnvironmentBroken, match="evaluated/hopeless faulted in 6 episodes, 0 of 3 were whole"):
        evaluate("evaluated/hopeless", policy(), 3, num_envs=1)


def test_loop_overhead_is_small() -> None:
    """30 microseconds of processor time an env step are asked for; a busy machine may take three times that."""

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
        started = time.process_time()
        chunk = rollout.collect(200)
        best = min(best, (time.process_time() - started) / chunk.env_steps)
    assert best < 90e-6

"""Each suite does what its description says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption, MissingDependency
from oneiros.envs.memory_suite import TMaze


def returns(env: Any, choose: Any, episodes: int) -> Any:
    """Returns of whole episodes; ``choose(env, observation, first observation)``."""
    totals = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=1 if episode == 0 else None)
        first, total, done = observation, 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(choose(env, observation, first))
            total, done = total + float(reward), terminated or truncated
        totals.append(total)
    return np.array(totals)


def assert_mean(values: Any, expected: float) -> None:
    """The mean lies within four standard errors of what it must be."""
    assert abs(values.mean() - expected) <= 4 * values.std() / np.sqrt(len(values)) + 1e-9


def uniform(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return lambda env, observation, first: int(rng.integers(env.action_space.n))


@pytest.mark.parametrize("env_id", ["memory/cue-20", "memory/tmaze-5", "memory/hold-5", "pixel/catch", "CartPole-v1"])
def test_gymnasiums_own_checker_is_satisfied(env_id: str) -> None:
    check_env(registry.make(env_id), skip_render_check=True)


class TestCue:
    def test_the_cue_is_seen_once_and_wanted_after_the_delay(self) -> None:
        env = registry.make("memory/cue-20")
        observation, _ = env.reset(seed=0)
        shown = observation[:4].copy()
        assert shown.sum() == 1
        for step in range(1, 23):
            observation, reward, terminated, truncated, _ = env.step(int(np.argmax(shown)))
            assert observation[:4].sum() == 0
            assert (observation[4] == 1) == (step == 21)
            assert (terminated, truncated) == (step == 22, False)
            assert reward == (1.0 if step == 22 else 0.0)

    def test_best_and_memoryless_returns(self) -> None:
        env = registry.make("memory/cue-20")
        assert (returns(env, lambda env, now, first: int(np.argmax(first[:4])), 40) == 1).all()
        assert_mean(returns(env, uniform(), 1000), 0.25)
        assert_mean(returns(env, lambda env, now, first: 2, 1000), 0.25)

    def test_observations_after_the_first_do_not_depend_on_the_cue(self) -> None:
        seen = {}
        for seed in range(30):
            env = registry.make("memory/cue-5")
            env.reset(seed=seed)
            rows = [env.step(1)[0] for _ in range(7)]
            seen[env.unwrapped.cue] = np.stack(rows)  # type: ignore[attr-defined]
        assert len(seen) == 4
        for rows in seen.values():
            np.testing.assert_array_equal(rows, seen[0])

    def test_options(self) -> None:
        env = registry.make("memory/cue-20", delay=3, cues=2)
        assert env.observation_space.shape == (4,) and env.action_space.n == 2  # type: ignore[attr-defined]
        assert_mean(returns(env, uniform(), 1000), 0.5)
        for options in ({"delay": 0}, {"cues": 1}, {"nothing": 1}):
            with pytest.raises(InvalidOption, match="memory/cue-20"):
                registry.make("memory/cue-20", **options)


class TestTMaze:
    @staticmethod
    def walk(turn: Any) -> Any:
        return lambda env, now, first: TMaze.LEFT + turn(first) if now[3] else 0

    def test_best_memoryless_and_random_returns(self) -> None:
        env = registry.make("memory/tmaze-20")
        best = returns(env, self.walk(lambda first: int(np.argmax(first[:2]))), 40)
        np.testing.assert_allclose(best, 0.9)
        assert_mean(returns(env, self.walk(lambda first: 0), 1000), 0.35)
        assert abs(returns(env, uniform(), 100).mean() + 0.4) < 0.05

    def test_an_agent_that_never_turns_is_truncated(self) -> None:
        env = registry.make("memory/tmaze-5")
        env.reset()
        ends = [env.step(0)[2:4] for _ in range(28)]
        assert ends == [(False, False)] * 27 + [(False, True)]


class TestHold:
    def test_best_memoryless_and_random_returns(self) -> None:
        env = registry.make("memory/hold-20")
        assert (returns(env, lambda env, now, first: int(first) - 1, 40) == 22).all()
        assert_mean(returns(env, lambda env, now, first: max(0, int(now) - 1), 600), 11.5)
        assert_mean(returns(env, uniform(), 600), 11)

    def test_observations_after_the_first_are_all_the_same(self) -> None:
        env = registry.make("memory/hold-5")
        assert env.reset(seed=1)[0] > 0
        steps = [env.step(0) for _ in range(7)]
        assert [step[0] for step in steps] == [0] * 7
        assert [step[2] for step in steps] == [False] * 6 + [True]
        assert "log_right" in steps[-1][4]


class TestCatch:
    @staticmethod
    def follow(env: Any, now: Any, first: Any) -> int:
        """Reads the picture only: the ball is yellow, the paddle blue."""
        cells = now[::4, ::4].astype(int)
        ball = int(np.argmax((cells[..., 0] > 200).any(axis=0)))
        paddle = int(np.argmax((cells[..., 2] > 200).any(axis=0)))
        return 1 + int(np.sign(ball - paddle))

    def test_best_and_random_returns(self) -> None:
        env = registry.make("pixel/catch")
        assert (returns(env, self.follow, 30) == 8).all()
        assert_mean(returns(env, uniform(), 1000), -6.0)

    def test_the_image(self) -> None:
        for size in (32, 64, 96):
            env = registry.make("pixel/catch", size=size)
            observation, _ = env.reset()
            assert observation.shape == (size, size, 3) and env.observation_space.contains(observation)
        with pytest.raises(InvalidOption, match=r"multiple of cells \(8\), not 30"):
            registry.make("pixel/catch", size=30)


class TestGymnasium:
    def test_pixels_of_any_environment(self) -> None:
        env = registry.make("CartPole-v1", pixels=True, size=64)
        observation, _ = env.reset()
        assert observation.shape == (64, 64, 3) and env.observation_space.contains(observation)
        assert observation.std() > 0

    def test_ids_that_only_this_process_knows_reach_environment_processes(self) -> None:
        class Local(gymnasium.Env[Any, Any]):
            observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                return np.full(2, 0.5, np.float32), {}

        gymnasium.register("Local-v0", Local)
        try:
            env = registry.make_vector("Local-v0", 2, "async")
            assert (env.reset()[0] == 0.5).all()
            env.close()
        finally:
            del gymnasium.registry["Local-v0"]

    def test_ids_of_a_module_that_registers_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "registers_one.py").write_text(
            "import gymnasium\n"
            "gymnasium.register('Registered-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=3)\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        try:
            env = registry.make("registers_one:Registered-v0")
            env.reset(seed=0)
            assert [env.step(0)[3] for _ in range(3)] == [False, False, True]
        finally:
            gymnasium.registry.pop("Registered-v0", None)
        with pytest.raises(MissingDependency, match="needs the module no_such_module"):
            registry.make("no_such_module:Registered-v0")


class TestControl:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("dm_control", reason="dm_control is not installed: pip install 'oneiros[dmc]'")
        pytest.importorskip("shimmy", reason="shimmy is not installed: pip install 'oneiros[dmc]'")

    def test_our_list_of_tasks_is_theirs(self) -> None:
        from dm_control import suite

        assert set(registry.find("dmc/walker_walk")[0].tasks()) == {f"{d}_{t}" for d, t in suite.ALL_TASKS}

    def test_state_is_named_float32_vectors(self) -> None:
        env = registry.make("dmc/walker_walk")
        observation, _ = env.reset(seed=3)
        assert {key: value.shape for key, value in observation.items()} == {
            "height": (1,),
            "orientations": (14,),
            "velocity": (9,),
        }
        assert env.observation_space.contains(observation)
        assert env.action_space == gymnasium.spaces.Box(-1, 1, (6,), np.float32)

    @pytest.mark.parametrize("options, steps", [({}, 1000), ({"action_repeat": 2}, 500), ({"time_limit": 70}, 70)])
    def test_the_time_limit_truncates_and_never_terminates(self, options: dict[str, int], steps: int) -> None:
        env = registry.make("dmc/cartpole_swingup", **options)
        env.reset(seed=0)
        ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(steps)]
        assert ends == [(False, False)] * (steps - 1) + [(False, True)]

    def test_seeds(self) -> None:
        def run(seed: int) -> Any:
            env = registry.make("dmc/reacher_easy", seed=seed)
            rows = [env.reset()[0]["position"], env.reset()[0]["position"]]
            return np.stack(rows)

        np.testing.assert_array_equal(run(1), run(1))
        assert not np.array_equal(run(1), run(2))
        assert not np.array_equal(*run(1))

    @pytest.mark.parametrize("task", ["walker_walk", "manipulator_insert_peg", "point_mass_hard"])
    def test_its_state_restores_exactly(self, task: str) -> None:
        env, other = registry.make(f"dmc/{task}"), registry.make(f"dmc/{task}")
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (60, *env.action_space.shape)).astype(np.float32)  # type: ignore[misc]
        env.reset(seed=1)
        other.reset(seed=2)
        for action in actions[:20]:
            env.step(action)
        other.unwrapped.set_state(env.unwrapped.get_state())  # type: ignore[attr-defined]
        for action in actions[20:]:
            (one, reward, *_), (two, same_reward, *_) = env.step(action), other.step(action)
            for key in one:
                np.testing.assert_array_equal(one[key], two[key], err_msg=key)
            assert reward == same_reward
        (one, _), (two, _) = env.reset(), other.reset()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])

    def test_pixels(self) -> None:
        try:
            env = registry.make("dmc/cartpole_swingup", pixels=True, size=[48, 64], state=True)
        except MissingDependency as error:
            pytest.skip(str(error))
        observation, _ = env.reset(seed=0)
        assert observation["image"].shape == (48, 64, 3) and observation["image"].std() > 5
        assert set(observation) == {"image", "position", "velocity"}
        assert env.observation_space.contains(observation)

    def test_without_anything_to_draw_with_one_sentence_says_so(self) -> None:
        code = (
            "from oneiros.envs import registry\n"
            "registry.make('dmc/cartpole_swingup')\n"
            "try: registry.make('dmc/cartpole_swingup', pixels=True)\n"
            "except ValueError as error: print(type(error).__name__, error)"
        )
        environment = {**os.environ, "MUJOCO_GL": "disabled"}
        output = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
        ).stdout
        assert output.startswith("MissingDependency dmc/cartpole_swingup draws images, and this machine has neither")

    def test_options(self) -> None:
        with pytest.raises(InvalidOption, match="dmc/walker_walk takes no option 'speed': there are pixels"):
            registry.make("dmc/walker_walk", speed=1)
        with pytest.raises(InvalidOption, match="nothing to observe"):
            registry.make("dmc/walker_walk", state=False)

import json
import pickle
from pathlib import Path
from typing import ClassVar

import gymnasium
import pytest
import ray
import torch
from gymnasium import spaces
from oneiros.platform.checkpoint import CheckpointError
from oneiros.platform.config import RunConfig
from oneiros.platform.engine import DreamerV3Config, WorldModelAlgorithm, WorldModelConfig
from oneiros.platform.training.engine import open_engine
from ray import tune
from ray.rllib.callbacks.callbacks import RLlibCallback
from safetensors.torch import load_file
from same_tensors import assert_same_tensors

pytestmark = pytest.mark.usefixtures("cluster")

TIMES = ("perf", "timers", "date", "pid", "hostname", "node_ip", "trial_id", "experiment_id", "timestamp")
OF_THIS_PROCESS = ("iterations_since_restore", "time_since_restore")


def config(**training):
    values = {"train_ratio": 8, "learning_starts": 100, "random_steps": 40, **training}
    return (
        WorldModelConfig(agent="linear_agent:LinearAgent")
        .environment("CartPole-v1")
        .env_runners(num_envs_per_env_runner=2)
        .training(**values)
        .replay(capacity=2_000)
        .debugging(seed=3)
    )


def comparable(result):
    """Everything in a result but speeds, times and where it was computed, as text."""
    skipped = (*TIMES, *OF_THIS_PROCESS, "config", "num_training_step_calls_per_iteration")
    kept = {
        name: value
        for name, value in result.items()
        if name not in skipped and not name.endswith("_per_s") and not name.startswith("time_")
    }
    return json.dumps(kept, default=float, sort_keys=True)


def weights(algorithm):
    return algorithm.learner_group._learner.agent.state_dict()


def test_two_runs_with_one_seed_are_the_same():
    algorithms = [config().build_algo(), config().build_algo()]
    histories = [[comparable(algorithm.train()) for _ in range(10)] for algorithm in algorithms]
    assert histories[0] == histories[1]
    assert json.loads(histories[0][-1])["updates"] > 50
    assert_same_tensors(weights(algorithms[0]), weights(algorithms[1]))
    other = config().debugging(seed=4).build_algo()
    other.train()
    ours, theirs = weights(algorithms[0]), weights(other)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    for algorithm in [*algorithms, other]:
        algorithm.stop()


def test_rllib_and_the_local_engine_train_the_same_agent(tmp_path):
    run = RunConfig(
        env="CartPole-v1",
        agent="linear_agent:LinearAgent",
        num_envs_per_runner=2,
        train_ratio=8,
        learning_starts=100,
        random_steps=40,
        seed=3,
        replay={"capacity": 2_000, "on_disk": False},
    )
    rllib, local = open_engine(run), open_engine(run.model_copy(update={"engine": "local"}))
    for _ in range(10):
        ours = {name: value for name, value in rllib.step().items() if not name.endswith("_per_s")}
        theirs = {name: value for name, value in local.step().items() if not name.endswith("_per_s")}
        assert ours == theirs
    assert ours["updates"] > 50
    assert rllib.evaluate(4, seed=9) == local.evaluate(4, seed=9)
    rllib.save(tmp_path / "checkpoint")
    local.step()
    local.restore(tmp_path / "checkpoint")
    assert local.env_steps == rllib.env_steps
    assert local.step()["loss"] == rllib.step()["loss"]
    rllib.close(), local.close()
    assert ray.is_initialized()


def test_both_engines_evaluate_in_an_environment_with_options_of_its_own():
    run = RunConfig(
        env="CartPole-v1",
        agent="linear_agent:LinearAgent",
        num_envs_per_runner=2,
        env_options={"time_limit": 9, "action_repeat": 2},
        evaluation={"env_options": {"time_limit": 3}},
        replay={"capacity": 2_000, "on_disk": False},
    )
    for engine in (open_engine(run), open_engine(run.model_copy(update={"engine": "local"}))):
        assert engine.evaluate(3, seed=9).lengths == (3, 3, 3)
        for _ in range(10):
            metrics = engine.step()
        assert metrics["length"] > 3
        engine.close()


def test_results_have_the_names_that_rllib_and_tune_users_look_for():
    algorithm = config().build_algo()
    for _ in range(5):
        result = algorithm.train()
    assert result["env_runners"]["episode_return_mean"] == result["return"] > 0
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == result["env_steps"] == algorithm.env_steps
    assert result["num_env_steps_sampled_lifetime"] == result["env_steps"]
    assert {"updates", "episodes", "length", "train_ratio", "policy_age", "updates_per_s", "env_steps_per_s"} <= set(
        result
    )
    assert {"loss", "loss/obs", "replay/rows", "faults/nonfinite_updates"} <= set(result)
    assert result["config"]["hyper"] == {} and isinstance(result["config"], dict)
    algorithm.stop()


def test_a_checkpoint_goes_on_as_if_training_had_never_stopped(tmp_path):
    whole, half = config().build_algo(), config().build_algo()
    for _ in range(5):
        whole.train(), half.train()
    expected = [comparable(whole.train()) for _ in range(3)]
    path = half.save_to_path(tmp_path / "checkpoint")
    half.stop()

    resumed = WorldModelAlgorithm.from_checkpoint(path)
    assert resumed.iteration == 5
    results = [comparable(resumed.train()) for _ in range(3)]
    assert results == expected
    assert_same_tensors(weights(resumed), weights(whole))
    resumed.stop(), whole.stop()


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (exec, (f"open({str(self.mark)!r}, 'w')",))


def test_another_number_of_environments_takes_no_random_steps_again(tmp_path):
    algorithm = config(random_steps=1000).build_algo()
    algorithm.train()
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    wider = config(random_steps=1000).env_runners(num_envs_per_env_runner=3)
    resumed = WorldModelAlgorithm.from_checkpoint(path, config=wider)
    left = resumed.local_runner.collector.rollout.random_left
    assert left == 1000 - algorithm.env_steps < 1000
    algorithm.stop(), resumed.stop()


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path):
    algorithm = config().build_algo()
    algorithm.train()
    path = Path(algorithm.save_to_path(tmp_path / "checkpoint"))
    assert not [file for file in path.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt", ".pth", ".msgpck")]

    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    (path / "class_and_ctor_args.pkl").write_bytes(bomb)
    (path / "algorithm_state.pkl").write_bytes(bomb)
    algorithm.restore_from_path(path)
    WorldModelAlgorithm.from_checkpoint(path).stop()
    (path / "_dict_checkpoint.pkl").write_bytes(bomb)
    with pytest.raises(CheckpointError, match="_dict_checkpoint"):
        algorithm.restore(str(path))
    (path / "_dict_checkpoint.pkl").unlink()
    for name in ("loop.json", "policy.safetensors", "learner-0/agent.safetensors", "manifest.json"):
        healthy = (path / name).read_bytes()
        (path / name).write_bytes(bomb)
        with pytest.raises(CheckpointError, match="damaged"):
            algorithm.restore_from_path(path)
        (path / name).write_bytes(healthy)
    assert not (tmp_path / "exploded").exists()
    algorithm.stop()


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    algorithm = config().build_algo()
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()
    with pytest.raises(CheckpointError, match="observation space"):
        WorldModelAlgorithm.from_checkpoint(path, config=config().environment("Pendulum-v1"))
    with pytest.raises(CheckpointError, match="another model"):
        WorldModelAlgorithm.from_checkpoint(path, config=config(hidden=7))
    with pytest.raises(CheckpointError, match="linear_agent:LinearAgent"):
        WorldModelAlgorithm.from_checkpoint(
            path, config=DreamerV3Config().environment("CartPole-v1").training(size="1m")
        )


def test_evaluation_is_apart_from_training():
    plain = config().build_algo()
    evaluated = config().evaluation(evaluation_interval=2, evaluation_duration=4).build_algo()
    for _ in range(4):
        one, other = plain.train(), evaluated.train()
    assert other["evaluation"]["env_runners"]["num_episodes"] == 4
    assert other["evaluation"]["env_runners"]["episode_return_mean"] > 0
    assert_same_tensors(weights(plain), weights(evaluated))
    assert evaluated.evaluate()["env_runners"]["episode_len_mean"] > 0
    assert one["return"] == other["return"]
    plain.stop(), evaluated.stop()


class Counting(RLlibCallback):
    seen: ClassVar[dict[str, int]] = {}

    def _count(self, name):
        self.seen[name] = self.seen.get(name, 0) + 1

    def on_algorithm_init(self, *, algorithm, **kwargs):
        self._count("init")

    def on_environment_created(self, *, env, **kwargs):
        self._count("environment")

    def on_episode_end(self, *, episode, metrics_logger, **kwargs):
        assert episode.get_return() == len(episode) > 0
        self._count("episode")

    def on_train_result(self, *, result, **kwargs):
        self._count("result")
        result["from_callback"] = 7

    def on_evaluate_start(self, *, algorithm, **kwargs):
        self._count("evaluate_start")

    def on_evaluate_end(self, *, evaluation_metrics, **kwargs):
        assert evaluation_metrics["env_runners"]["num_episodes"] == 10
        self._count("evaluate_end")

    def on_checkpoint_loaded(self, *, algorithm, **kwargs):
        self._count("loaded")


def test_callbacks_are_called(tmp_path):
    Counting.seen.clear()
    algorithm = config().callbacks(Counting).build_algo()
    for _ in range(3):
        result = algorithm.train()
    algorithm.evaluate()
    algorithm.restore(algorithm.save(str(tmp_path / "checkpoint")))
    algorithm.stop()
    assert result["from_callback"] == 7
    assert Counting.seen.pop("episode") == result["episodes"]
    names = {"init": 1, "environment": 1, "result": 3, "evaluate_start": 1, "evaluate_end": 1, "loaded": 1}
    assert Counting.seen == names


class Countdown(gymnasium.Env):
    """An environment class as an RLlib user has it: it takes one dictionary."""

    def __init__(self, env_config):
        self.length = env_config["length"]
        self.observation_space = spaces.Box(0, self.length, (1,))
        self.action_space = spaces.Box(0, 10, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.left -= 1
        return self._observe(), 1.0, self.left == 0, False, {}

    def _observe(self):
        import numpy as np

        return np.array([self.left], np.float32)


def test_environments_that_rllib_users_bring(tmp_path):
    tune.register_env("countdown", Countdown)
    for env in (Countdown, "countdown"):
        algorithm = config(learning_starts=20).environment(env, env_config={"length": 11}).build_algo()
        for _ in range(2):
            result = algorithm.train()
        assert result["return"] == 11 and result["updates"] > 0
        assert algorithm.evaluate()["env_runners"]["episode_return_mean"] == 11
        algorithm.stop()
        elsewhere = config(learning_starts=20).environment(env, env_config={"length": 11})
        algorithm = elsewhere.evaluation(evaluation_config={"env_config": {"length": 5}}).build_algo()
        assert algorithm.evaluate()["env_runners"]["episode_return_mean"] == 5
        assert algorithm.train()["return"] == 11
        path = algorithm.save_to_path(tmp_path / "checkpoint")
        algorithm.stop()
        if env is Countdown:
            with pytest.raises(CheckpointError, match="pass config="):
                WorldModelAlgorithm.from_checkpoint(path)
            again = config().environment(env, env_config={"length": 11})
            WorldModelAlgorithm.from_checkpoint(path, config=again).stop()


def test_an_environment_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="CartPol-v1"):
        config().environment("CartPol-v1").build_algo()


def test_tune_tries_settings_and_keeps_checkpoints(tmp_path):
    space = config(learning_rate=tune.grid_search([1e-4, 1e-2]), env_steps_per_iteration=150)
    results = tune.Tuner(
        WorldModelAlgorithm,
        param_space=space,
        run_config=tune.RunConfig(
            stop={"training_iteration": 2},
            storage_path=str(tmp_path),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    ).fit()
    assert not results.errors and len(results) == 2
    assert sorted(result.config["hyper"]["learning_rate"] for result in results) == [1e-4, 1e-2]
    best = results.get_best_result("env_runners/episode_return_mean", "max")
    agent = load_file(Path(best.checkpoint.path) / "learner-0/agent.safetensors")
    assert agent["updates"] > 10
    algorithm = WorldModelAlgorithm.from_checkpoint(best.checkpoint)
    assert algorithm.env_steps >= 300 and algorithm.train()["updates"] > agent["updates"]
    algorithm.stop()
    assert ray.is_initialized()

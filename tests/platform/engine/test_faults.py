"""Processes of a training that are killed or hang: what is lost, what is counted, and that it goes on."""

import os
import signal
from types import SimpleNamespace

import pytest
import ray
import torch
from hanging_env import HangingEnv
from oneiros.platform.checkpoint import open_checkpoint
from oneiros.platform.engine.learner_calls import LearnerCalls, LearnerDied
from oneiros.platform.training.core import TrainingDiverged
from safetensors.torch import load_file
from small_training import config, process_ids, train_until

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    """Whoever finds this file in an environment's step takes it away and hangs."""
    return tmp_path_factory.mktemp("flag") / "hang"


@pytest.fixture(scope="module")
def algorithm(cluster, flag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    built = (
        config()
        .environment(HangingEnv, env_config={"flag": str(flag)})
        .learners(num_learners=1)
        .replay(directory=str(folder / "replay"))
        .fault_tolerance(
            env_runner_timeout_s=5.0, recovery_directory=str(folder / "recovery"), recovery_interval_s=600.0
        )
        .build_algo()
    )
    train_until(built, lambda result: result["updates"] > 20)
    yield built
    built.stop()


def test_all_runners_may_be_killed_at_once(algorithm):
    before = algorithm.train()
    victims = set(process_ids(algorithm).values())
    assert len(victims) == 2
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    result = train_until(
        algorithm,
        lambda result: (
            result["faults/env_runner_restarts"] >= before["faults/env_runner_restarts"] + 2
            and len(algorithm.env_runner_group.healthy_env_runner_ids()) == 2
            and result["updates"] > before["updates"] + 20
        ),
        seconds=120,
    )
    assert not victims & set(process_ids(algorithm).values())
    assert result["env_steps"] > before["env_steps"]
    assert result["replay/rows"] >= before["replay/rows"]


def test_a_learner_may_die_while_a_checkpoint_is_written(algorithm, tmp_path):
    algorithm.flow.drain()
    steps, updates = algorithm.env_steps, algorithm.updates
    os.kill(algorithm.calls.call("process_id")[0], signal.SIGKILL)
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    manifest = open_checkpoint(tmp_path / "checkpoint")
    assert manifest.counters["env_steps"] == steps and 0 <= manifest.counters["updates"] <= updates
    assert (tmp_path / "checkpoint/learner-0/replay").is_dir() and path
    result = train_until(algorithm, lambda result: result["updates"] > updates + 20)
    assert result["faults/learner_restarts"] == 1


def test_an_evaluation_outlives_an_environment_that_hangs(algorithm, flag):
    before = algorithm.newest_metrics["faults/env_runner_restarts"]
    flag.touch()
    result = algorithm.play(6, seed=5)
    assert not flag.exists()
    assert result.episodes == 6 and set(result.lengths) == {10}
    train_until(algorithm, lambda result: result["faults/env_runner_restarts"] > before)


@ray.remote(num_cpus=0)
class Stubborn:
    def learn(self):
        signal.pause()

    def answer(self):
        return 7


def test_a_learner_that_says_nothing_is_ended_and_counts_as_dead():
    hanging, healthy = Stubborn.remote(), Stubborn.remote()
    assert ray.get([hanging.answer.remote(), healthy.answer.remote()], timeout=120) == [7, 7]
    group = SimpleNamespace(is_local=False, _learner=None, _workers=[hanging])
    with pytest.raises(LearnerDied, match=r"said nothing for 0\.5 s"):
        LearnerCalls(group, timeout=0.5).call("learn")
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(hanging.answer.remote(), timeout=60)
    ray.kill(healthy)


def test_gradients_that_stay_not_finite_end_a_training_that_can_be_saved(cluster, tmp_path):
    built = config(poison_update=10, most_nonfinite_updates=5).env_runners(num_env_runners=1).build_algo()
    try:
        with pytest.raises(TrainingDiverged, match="5 updates in a row"):
            train_until(built, lambda result: False)
        path = built.save_to_path(tmp_path / "checkpoint")
    finally:
        built.stop()
    assert path and open_checkpoint(tmp_path / "checkpoint").counters["updates"] >= 10
    tensors = load_file(tmp_path / "checkpoint/learner-0/agent.safetensors")
    assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())

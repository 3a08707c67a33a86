"""With env runners in processes of their own: these tests share algorithms, which take seconds to start."""

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch
from far_learner import FarLearner
from hanging_env import HangingEnv
from oneiros.platform.engine import DreamerV3Config, WorldModelAlgorithm
from oneiros.platform.engine.learner_calls import LearnerDied
from small_training import config, process_ids, train_until

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def learner_in_driver(cluster):
    algorithm = config().build_algo()
    yield algorithm
    algorithm.stop()


def test_collection_and_learning_overlap_and_the_ratio_is_held(learner_in_driver):
    train_until(learner_in_driver, lambda result: result["updates"] > 0)
    start = learner_in_driver.newest_metrics
    result = train_until(learner_in_driver, lambda result: result["updates"] > start["updates"] + 400)
    replayed = (result["updates"] - start["updates"]) * 32
    collected = result["env_steps"] - start["env_steps"]
    # What is outstanding at either end is at most the bound; over a long window it vanishes.
    slack = 2 * learner_in_driver.flow.bound * 32
    assert abs(replayed - 8 * collected) <= slack
    assert result["train_ratio"] == pytest.approx(8, rel=0.25)
    assert result["policy_age"] < 2 * learner_in_driver.flow.bound
    assert result["env_runners"]["episode_return_mean"] > 0 and result["replay/rows"] > 100


def test_both_runners_deliver_and_streams_stay_apart(learner_in_driver):
    replay = learner_in_driver.learner_group._learner.core.replay
    learner_in_driver.flow.drain()
    assert set(replay.streams) == {0, 1}


def test_collection_waits_for_a_learner_that_lags(learner_in_driver):
    # What is due is counted from the first update on.
    train_until(learner_in_driver, lambda result: result["updates"] > 0)
    flow = learner_in_driver.flow
    flow.drain()
    # Of a fast learner so much may be outstanding that collecting it takes minutes.
    flow._per_second = 100.0
    real_submit, flow._submit = flow._submit, lambda *args, **kwargs: None
    try:
        end = time.monotonic() + 60
        while (flow.backlog <= flow.bound or flow.runners.num_in_flight_async_reqs()) and time.monotonic() < end:
            flow._take_chunks(flow._fetch(0.05))
        lagging = flow.env_steps
        for _ in range(10):
            flow._take_chunks(flow._fetch(0.05))
        assert flow.env_steps == lagging
        in_flight = 2 * 2 * flow._fragment * 8 / 32
        assert flow.bound < flow.backlog <= flow.bound + in_flight + 1
    finally:
        flow._submit = real_submit
    train_until(learner_in_driver, lambda result: result["env_steps"] > lagging)


def own_seeds(algorithm):
    return set(algorithm.env_runner_group.foreach_env_runner(lambda runner: runner._own_seed(), local_env_runner=False))


def test_a_killed_runner_comes_back_and_is_counted(learner_in_driver):
    before = learner_in_driver.train()
    victim, first_seeds = process_ids(learner_in_driver)[1], own_seeds(learner_in_driver)
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 90
    while learner_in_driver.newest_metrics["faults/env_runner_restarts"] == 0 and time.monotonic() < end:
        learner_in_driver.train()
    result = train_until(
        learner_in_driver,
        lambda result: (
            len(learner_in_driver.env_runner_group.healthy_env_runner_ids()) == 2
            and result["updates"] > before["updates"] + 50
            # What was owed while only one runner collected is paid back.
            and result["train_ratio"] == pytest.approx(8, rel=0.25)
        ),
    )
    assert result["faults/env_runner_restarts"] >= 1
    assert victim not in process_ids(learner_in_driver).values()
    assert result["env_steps"] > before["env_steps"]
    # It plays other episodes than those that it had played before.
    assert len(own_seeds(learner_in_driver) | first_seeds) == 3


def test_evaluation_and_checkpoints_work_while_runners_run(learner_in_driver, tmp_path):
    evaluation = learner_in_driver.evaluate()
    assert evaluation["env_runners"]["num_episodes"] == 10
    path = learner_in_driver.save_to_path(tmp_path / "checkpoint")
    steps, updates = learner_in_driver.env_steps, learner_in_driver.updates
    weights = learner_in_driver.learner_group._learner.agent.state_dict()

    alone = WorldModelAlgorithm.from_checkpoint(
        path, config=config().env_runners(num_env_runners=0, num_envs_per_env_runner=3)
    )
    restored = alone.learner_group._learner.agent.state_dict()
    assert all(torch.equal(weights[name], restored[name]) for name in weights)
    assert (alone.env_steps, alone.updates) == (steps, updates)
    assert alone.train()["updates"] > updates
    alone.stop()

    learner_in_driver.train()
    learner_in_driver.restore_from_path(path)
    assert (learner_in_driver.env_steps, learner_in_driver.updates) == (steps, updates)
    train_until(learner_in_driver, lambda result: result["updates"] > updates + 20)


def test_several_learners_agree_and_a_dead_one_is_replaced(cluster, tmp_path):
    built = config().learners(num_learners=2).replay(directory=str(tmp_path / "replay"))
    algorithm = built.fault_tolerance(
        recovery_directory=str(tmp_path / "recovery"), recovery_interval_s=1.0
    ).build_algo()
    try:
        before = train_until(algorithm, lambda result: result["updates"] > 40)
        algorithm.flow.drain()
        states = algorithm.calls.call("policy_state")
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        path = algorithm.save_to_path(tmp_path / "checkpoint")

        algorithm.train()
        algorithm.flow.drain()
        pids = algorithm.calls.call("process_id")
        rows = algorithm.newest_metrics["replay/rows"]
        os.kill(pids[1], signal.SIGKILL)
        result = train_until(algorithm, lambda result: result["faults/learner_restarts"] == 1)
        algorithm.flow.drain()
        assert not set(pids) & set(algorithm.calls.call("process_id"))
        result = train_until(algorithm, lambda result: result["updates"] > before["updates"] + 40)
        assert result["env_steps"] > before["env_steps"]
        assert result["replay/rows"] >= 0.8 * rows  # Experience came back from the disk.
        algorithm.flow.drain()
        states = algorithm.calls.call("policy_state")
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    finally:
        algorithm.stop()

    one = WorldModelAlgorithm.from_checkpoint(path, config=config().env_runners(num_env_runners=0))
    assert one.updates > 40 and one.train()["updates"] > one.updates - 40
    assert one.newest_metrics["replay/rows"] > 100
    one.stop()


def test_a_dead_learner_without_a_saved_state_ends_training_with_the_reason(cluster):
    algorithm = config().learners(num_learners=1).build_algo()
    try:
        train_until(algorithm, lambda result: result["env_steps"] > 0)
        algorithm.flow.drain()
        os.kill(algorithm.calls.call("process_id")[0], signal.SIGKILL)
        with pytest.raises(LearnerDied, match="recovery_directory"):
            train_until(algorithm, lambda result: False, seconds=30)
    finally:
        algorithm.stop()


def test_a_learner_that_does_not_see_the_disk_sends_and_fetches_its_checkpoint(cluster, tmp_path):
    built = config().learners(num_learners=1)
    built._learner_class = FarLearner
    algorithm = built.build_algo()
    try:
        train_until(algorithm, lambda result: result["updates"] > 10)
        path = algorithm.save_to_path(tmp_path / "checkpoint")
        algorithm.flow.drain()
        before = algorithm.calls.call("policy_state")[0]
        updates, rows = algorithm.updates, algorithm.newest_metrics["replay/rows"]
        assert (tmp_path / "checkpoint/learner-0/replay").is_dir()
        algorithm.train()
        algorithm.restore_from_path(path)
        after = algorithm.calls.call("policy_state")[0]
        assert algorithm.updates == updates and all(torch.equal(before[name], after[name]) for name in before)
        assert algorithm.train()["replay/rows"] >= rows
    finally:
        algorithm.stop()
    assert not list(Path(tempfile.gettempdir()).glob("oneiros-*checkpoint*"))


def test_a_runner_whose_environment_hangs_is_started_again(cluster, tmp_path):
    built = config().environment(HangingEnv, env_config={"flag": str(tmp_path / "hang")})
    algorithm = built.fault_tolerance(env_runner_timeout_s=2.0).build_algo()
    try:
        train_until(algorithm, lambda result: result["updates"] > 0)
        pids = set(process_ids(algorithm).values())
        (tmp_path / "hang").touch()
        train_until(algorithm, lambda result: result.get("faults/env_runners_hung", 0) >= 1)
        result = train_until(
            algorithm,
            lambda result: (
                result["faults/env_runner_restarts"] >= 1
                and len(algorithm.env_runner_group.healthy_env_runner_ids()) == 2
            ),
        )
        steps = result["env_steps"]
        train_until(algorithm, lambda result: result["env_steps"] > steps + 100)
        assert pids != set(process_ids(algorithm).values())
    finally:
        algorithm.stop()


def test_stopping_does_not_wait_for_an_environment_that_hangs(cluster, tmp_path):
    flag = tmp_path / "hang"
    algorithm = config().environment(HangingEnv, env_config={"flag": str(flag)}).build_algo()
    train_until(algorithm, lambda result: result["env_steps"] > 0)
    flag.touch()
    train_until(algorithm, lambda result: not flag.exists())
    start = time.monotonic()
    algorithm.stop()
    assert time.monotonic() - start < 60


def test_dreamer_trains_from_one_line(cluster):
    algorithm = (
        DreamerV3Config()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2)
        .evaluation(evaluation_config={"env_config": {"time_limit": 7}})
        .training(size="1m", train_ratio=128, batch_size=2, batch_length=16, learning_starts=64)
        .build_algo()
    )
    try:
        result = train_until(algorithm, lambda result: result["updates"] >= 5)
        assert result["loss/total"] > 0 and result["env_steps"] >= 64
        assert algorithm.evaluate()["env_runners"]["episode_return_mean"] == 7 < result["length"]
        assert algorithm.videos() == {}  # A vector cannot be filmed: its errors are figures.
    finally:
        algorithm.stop()

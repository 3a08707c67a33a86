"""Env runners that hold no model and ask the learner's device for actions."""

import os
import signal

import numpy as np
import pytest
import ray
from oneiros.envs import registry
from oneiros.platform.config import ConfigError, RunConfig
from oneiros.platform.engine import WorldModelConfig
from oneiros.platform.engine.inference import Place, PolicyCopy, Request, start_inference
from oneiros.platform.engine.published import Published
from oneiros.platform.engine.remote_policy import RemotePolicy
from oneiros.platform.engine.rllib_engine import algorithm_config
from oneiros.platform.rollout import Rollout
from oneiros.platform.training.agents import build_agent
from small_training import config, process_ids, train_until
from tiny_run import HYPER

SEED = 3


def own_policy(settings, spaces):
    """What a runner would build for itself from these settings and the runner's seed."""
    return build_agent(settings.agent, settings.hyperparameters(), *spaces, seed=SEED + 1, role="policy")


def weights_of(settings, spaces):
    return build_agent(settings.agent, settings.hyperparameters(), *spaces, seed=7).policy_state()


@pytest.mark.ray
def test_rows_are_those_of_a_runner_that_acts_itself(cluster):
    """Bit for bit, where nobody else asks: the random numbers are then drawn in the same order."""
    settings = WorldModelConfig(agent="dreamerv3").training(**HYPER).debugging(seed=SEED)
    rollouts, servers = [], []
    for remote in (False, True):
        env = registry.make_vector("CartPole-v1", 3, "sync", 11)
        spaces = env.single_observation_space, env.single_action_space
        weights = weights_of(settings, spaces)
        if remote:
            place = Place(ray.get_runtime_context().get_node_id(), "cpu", None)
            servers.append(start_inference(settings, spaces, place))
            policy = RemotePolicy(Published(1, 5, ray.put(weights), servers[0]), "train", 120.0)
        else:
            policy = own_policy(settings, spaces)
            policy.load_policy_state(weights)
        rollouts.append(Rollout(env, policy, seed=SEED, random_steps=6))
    try:
        own, asked = (rollout.collect(60).rows for rollout in rollouts)
        assert own.keys() == asked.keys() and own["is_last"].any() and len(np.unique(own["action"])) > 1
        for key in own:
            np.testing.assert_array_equal(own[key], asked[key], err_msg=key)
        acted = rollouts[1].policy.acted()
        assert acted == (5, 0)
    finally:
        for rollout in rollouts:
            rollout.close()
        for server in servers:
            ray.kill(server)


def test_requests_that_are_answered_together_get_what_each_would_alone():
    settings = WorldModelConfig(agent="linear_agent:LinearAgent")
    env = registry.make_vector("CartPole-v1", 1, "sync", 0)
    spaces = env.single_observation_space, env.single_action_space
    env.close()
    rng = np.random.default_rng(0)

    def request(envs):
        state = own_policy(settings, spaces).initial_state(envs)
        obs = {"obs": rng.normal(size=(envs, 4)).astype(np.float32)}
        state = {key: rng.normal(size=value.shape).astype(np.float32) for key, value in state.items()}
        return Request(obs, rng.random(envs) < 0.5, state)

    requests = [request(envs) for envs in (2, 1, 3)]
    copy = PolicyCopy(own_policy(settings, spaces), "eval")
    copy.give(weights_of(settings, spaces), number=4, updates=9)
    together = copy.answer(requests)
    for asked, answer in zip(requests, together, strict=True):
        (alone,) = copy.answer([asked])
        assert (answer.number, answer.updates) == (4, 9)
        for one, other in zip(answer[:3], alone[:3], strict=True):
            assert one.keys() == other.keys()
            for key in one:
                assert len(one[key]) == len(asked.is_first)
                np.testing.assert_allclose(one[key], other[key], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def algorithm(cluster):
    built = (
        config()
        .env_runners(inference="learner", num_envs_per_env_runner=2)
        .fault_tolerance(inference_timeout_s=5.0)
        .build_algo()
    )
    yield built
    built.stop()


def server_process(algorithm):
    return ray.get(algorithm.flow.server.process_id.remote(), timeout=120)


@pytest.mark.ray
def test_runners_hold_no_model_and_training_is_as_ever(algorithm):
    result = train_until(algorithm, lambda result: result["updates"] > 100 and "policy_age" in result, seconds=120)
    policies = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: type(runner.policy).__name__, local_env_runner=False
    )
    assert policies == ["RemotePolicy", "RemotePolicy"]
    assert 0 <= result["policy_age"] < 2 * algorithm.flow.bound
    algorithm.flow.drain()
    replay = algorithm.learner_group._learner.core.replay
    assert set(replay.streams) == {0, 1, 2, 3}
    rows = replay.sample()
    assert np.abs(rows["latent/hidden"]).max() > 0 and set(np.unique(rows["action"])) == {0, 1}


@pytest.mark.ray
def test_newer_weights_act_and_evaluations_have_their_own(algorithm):
    before = algorithm.train()
    train_until(algorithm, lambda result: result["updates"] > before["updates"] + 200)
    # The weights that act are at most some publications old, not those of the beginning.
    result = train_until(algorithm, lambda result: "policy_age" in result)
    assert result["updates"] - result["policy_age"] > before["updates"]
    evaluation = algorithm.evaluate()
    assert evaluation["env_runners"]["num_episodes"] == 10
    assert algorithm.newest_metrics.get("faults/env_runner_errors", 0) == 0


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
def test_whoever_acts_may_die_or_hang(algorithm, number):
    before = algorithm.train()
    runners, victim = process_ids(algorithm), server_process(algorithm)
    retries = before.get("faults/inference_retries", 0)
    os.kill(victim, number)
    result = train_until(
        algorithm,
        lambda result: (
            result.get("faults/inference_retries", 0) > retries and result["env_steps"] > before["env_steps"] + 500
        ),
        seconds=240,
    )
    assert server_process(algorithm) != victim
    # Nothing was lost with it but requests, which were asked again.
    assert process_ids(algorithm) == runners
    assert result.get("faults/env_runner_errors", 0) == 0 and result["faults/env_runner_restarts"] == 0
    assert algorithm.play(4, seed=5).episodes == 4


@pytest.mark.ray
def test_whoever_acts_may_be_ended_for_good_and_another_take_its_place(algorithm):
    """As when a learner is built again elsewhere."""
    before = algorithm.train()
    ray.kill(algorithm.flow.server)
    algorithm.flow.drain()
    algorithm._inference_place = None
    algorithm._place_inference()
    algorithm.flow.publish()
    result = train_until(algorithm, lambda result: result["env_steps"] > before["env_steps"] + 500, seconds=240)
    assert result["faults/env_runner_restarts"] == before["faults/env_runner_restarts"]
    # Every request that was in flight, two a runner, may have met the end.
    assert result.get("faults/env_runner_errors", 0) <= before.get("faults/env_runner_errors", 0) + 4


@pytest.mark.parametrize(
    "build, sentence",
    [
        (lambda: WorldModelConfig().env_runners(inference="gpu"), "must be runner or learner"),
        (lambda: WorldModelConfig().env_runners(inference="learner"), "num_env_runners is 0"),
        (lambda: WorldModelConfig().fault_tolerance(inference_timeout_s=0), "inference_timeout_s is 0"),
        (
            lambda: WorldModelConfig(agent="belief").env_runners(inference="learner", num_env_runners=1),
            "belief examines its evaluations",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build().environment("CartPole-v1").validate()


def test_a_run_says_where_actions_are_chosen():
    run = RunConfig(env="CartPole-v1", num_runners=2, inference="learner", hyper={"size": "1m"})
    assert algorithm_config(run).inference == "learner"
    with pytest.raises(ValueError, match="num_runners must be at least 1"):
        RunConfig(env="CartPole-v1", inference="learner")

import copy

import pytest
from linear_agent import LinearAgent
from oneiros.platform.config import ConfigError, RunConfig
from oneiros.platform.engine import DreamerV3, DreamerV3Config, WorldModelConfig
from oneiros.platform.engine.rllib_engine import algorithm_config, gpus_per_learner
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


class Alone:
    """Knows nothing of other learners."""

    Config = LinearAgent.Config


def fake():
    return WorldModelConfig(agent="linear_agent:LinearAgent").environment("CartPole-v1")


@pytest.mark.parametrize(
    "build, sentence",
    [
        (lambda: fake().training(train_ration=8), "train_ration.*did you mean train_ratio"),
        (lambda: fake().training(lr=1e-3), "knows no 'lr'"),
        (lambda: fake().training(learning_rat=1e-3), "did you mean learning_rate"),
        (lambda: fake().update_from_dict({"num_env_runer": 3}), "did you mean num_env_runners"),
        (lambda: fake().env_runners(num_env_runners=-1).validate(), "num_env_runners is -1"),
        (lambda: fake().update_from_dict({"num_envs_per_env_runner": 0}).validate(), "num_envs_per_env_runner is 0"),
        (lambda: fake().env_runners(num_env_runners=True).validate(), "num_env_runners is True"),
        (lambda: fake().env_runners(vectorization="threads").validate(), "sync or async"),
        (lambda: fake().training(train_ratio=0).validate(), "train_ratio is 0"),
        (lambda: fake().training(train_ratio="8").validate(), "train_ratio is '8'"),
        (lambda: fake().training(hidden=0).validate(), "hidden must be"),
        (lambda: fake().training(device="tpu").validate(), "device"),
        (lambda: fake().learners(num_learners=2).validate(), "num_env_runners is 0"),
        (lambda: fake().env_runners(num_env_runners=1).learners(num_learners=2).validate(), "only 1 env runner"),
        (
            lambda: fake().env_runners(num_env_runners=3).learners(num_learners=3).validate(),
            "batch_size is 4, which 3 learners",
        ),
        (
            lambda: (
                WorldModelConfig(agent=Alone)
                .environment("CartPole-v1")
                .env_runners(num_env_runners=2)
                .learners(num_learners=2)
                .validate()
            ),
            "num_learners is 2, but the agent .*Alone learns alone",
        ),
        (lambda: fake().replay(capacity=0).validate(), "replay_capacity is 0"),
        (lambda: fake().replay(mixture={"uniform": 0.5}).validate(), "replay_mixture"),
        (lambda: WorldModelConfig(agent="nosuch").environment("CartPole-v1").training(size="1m"), "nosuch"),
        (lambda: WorldModelConfig(agent="linear_agent:LinearAgent").validate(), "no environment is set"),
    ],
)
def test_what_rllib_would_take_without_a_word_is_refused_in_one_sentence(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build()


def test_settings_of_the_agent_and_of_rllib_go_through_one_dictionary():
    config = fake().update_from_dict({"learning_rate": 0.5, "train_ratio": 3, "num_env_runners": 2})
    config.validate()
    assert config.hyperparameters().learning_rate == 0.5
    assert (config.train_ratio, config.num_env_runners) == (3, 2)
    again = fake().update_from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()


def test_json_keeps_what_a_checkpoint_needs():
    config = fake().env_runners(num_env_runners=2).training(hidden=8, train_ratio=3.5).debugging(seed=4)
    rebuilt = WorldModelConfig().from_json(config.to_json())
    assert rebuilt.to_json() == config.to_json() and rebuilt.evaluation_config is None
    assert rebuilt.hyperparameters().hidden == 8 and rebuilt.seed == 4


def test_evaluations_have_environment_options_of_their_own_by_name():
    given = {"env_config": {"worlds": "held-out", "aspects": {"b": 2}}}
    config = fake().environment(env_config={"worlds": "train", "aspects": {"a": 1}, "size": 32})
    assert config.evaluation_env_config() == config.env_config
    config.evaluation(evaluation_config=given)
    played = {"worlds": "held-out", "aspects": {"b": 2}, "size": 32}
    assert config.evaluation_env_config() == config.get_evaluation_config_object().env_config == played
    assert config.env_config["worlds"] == "train" and config.env_config["aspects"] == {"a": 1}
    rebuilt = WorldModelConfig().from_json(config.to_json())
    assert rebuilt.evaluation_env_config() == played and rebuilt.env_config == config.env_config


def test_chunks_are_as_long_as_the_updates_they_pay_for():
    def dreamer(ratio, runners, envs=1):
        config = DreamerV3Config().environment("CartPole-v1").training(size="1m", train_ratio=ratio)
        return config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs)

    assert dreamer(1024, 0).fragment_length() == 1
    assert dreamer(128, 0).fragment_length() == 8
    assert dreamer(128, 0, envs=4).fragment_length() == 2
    assert dreamer(128, 2).fragment_length() == 32
    assert dreamer(1, 1).fragment_length() == 64
    assert dreamer(128, 2).env_runners(rollout_fragment_length=5).fragment_length() == 5


def test_a_run_configuration_means_the_same_to_rllib(tmp_path):
    run = RunConfig(
        env="CartPole-v1",
        env_options={"action_repeat": 2},
        evaluation={"env_options": {"time_limit": 9}},
        hyper={"size": "1m", "batch_size": 8},
        num_runners=2,
        num_envs_per_runner=3,
        train_ratio=96,
        learning_starts=77,
        random_steps=9,
        seed=5,
        run_dir=tmp_path,
        replay={"capacity": 4096, "mixture": {"uniform": 0.5, "recency": 0.5}},
    )
    config = algorithm_config(run)
    config.validate()
    assert config.algo_class is DreamerV3
    assert (config.env, config.env_config, config.seed) == ("CartPole-v1", {"action_repeat": 2}, 5)
    assert config.evaluation_env_config() == run.evaluation_env_options == {"action_repeat": 2, "time_limit": 9}
    assert (config.num_env_runners, config.num_envs_per_env_runner, config.train_ratio) == (2, 3, 96)
    assert (config.learning_starts, config.random_steps, config.replay_capacity) == (77, 9, 4096)
    assert config.hyperparameters().batch_size == 8 and config.replay_mixture == {"uniform": 0.5, "recency": 0.5}
    assert config.replay_directory == str(tmp_path / "replay")


def test_a_copy_is_independent():
    config = fake().training(hidden=8)
    other = copy.deepcopy(config).training(hidden=4)
    assert config.hyperparameters().hidden == 8 and other.hyperparameters().hidden == 4


@pytest.mark.parametrize(
    "learners, device, there, wanted",
    [(0, "cuda", 4, 0), (2, "cpu", 4, 0), (2, "auto", 4, 1), (2, "auto", 1, 0), (2, "auto", 0, 0), (2, "cuda", 0, 1)],
)
def test_learner_processes_ask_for_the_gpus_that_ray_would_hide_from_them(learners, device, there, wanted):
    run = RunConfig(env="CartPole-v1", num_runners=2, num_learners=learners, device=device)
    assert gpus_per_learner(run, there) == wanted


def test_a_checkpoint_keeps_every_setting():
    """Whoever goes on from it with nothing but its path has a run that survives what the first one did."""
    theirs, ours = vars(AlgorithmConfig()), vars(fake())
    changed = {name for name, value in ours.items() if name not in theirs or theirs[name] != value}
    same_for_all = {"merge_env_runner_states", "broadcast_env_runner_states", "_dont_auto_sync_env_runner_states"}
    assert changed - set(fake().to_json()) == {"algo_class", "env_runner_cls", *same_for_all}

"""A small training with env runners in processes of their own, and what tests ask of one."""

import time

from oneiros.platform.engine import WorldModelConfig


def config(**training):
    values = {"train_ratio": 8, "learning_starts": 100, "random_steps": 40, **training}
    built = (
        WorldModelConfig(agent="linear_agent:LinearAgent")
        .environment("CartPole-v1")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=1, num_cpus_per_env_runner=0.5)
        .learners(num_cpus_per_learner=0.5)
        .training(**values)
        .replay(capacity=5_000)
        .reporting(min_time_s_per_iteration=0.3)
        .debugging(seed=3)
    )
    built.num_cpus_for_main_process = 0.5
    return built


def train_until(algorithm, enough, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = algorithm.train()
        if enough(result):
            return result
    raise AssertionError(f"not reached in {seconds} s: { ({k: v for k, v in result.items() if k != 'config'}) }")


def process_ids(algorithm):
    return dict(
        zip(
            algorithm.env_runner_group.healthy_env_runner_ids(),
            algorithm.env_runner_group.foreach_env_runner("process_id", local_env_runner=False),
            strict=True,
        )
    )

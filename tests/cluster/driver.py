"""Trains the fake agent over the cluster at RAY_ADDRESS until it is told to stop, and writes down how it goes."""

import json
import signal
import sys
from pathlib import Path

import ray
from oneiros.platform.engine import WorldModelConfig


def main(folder: Path, runners: int) -> None:
    stopped = []
    ray.init(log_to_driver=False)
    config = (
        WorldModelConfig(agent="linear_agent:LinearAgent")
        .environment("CartPole-v1")
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=1)
        .training(train_ratio=2, learning_starts=100)
        .replay(capacity=20_000)
        .reporting(min_time_s_per_iteration=0.3)
        .debugging(seed=3)
    )
    algorithm = config.build_algo()
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with (folder / "metrics.jsonl").open("w") as file:
        while not stopped:
            algorithm.train()
            metrics = dict(algorithm.newest_metrics)
            metrics["healthy"] = algorithm.env_runner_group.num_healthy_remote_env_runners()
            file.write(json.dumps(metrics) + "\n")
            file.flush()
    algorithm.save_to_path(folder / "checkpoint")
    algorithm.stop()


main(Path(sys.argv[1]), int(sys.argv[2]))

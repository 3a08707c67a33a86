"""Trains the fake agent over the cluster at RAY_ADDRESS until it is told to stop, and writes down how it goes."""

import json
import os
import signal
import sys
from pathlib import Path

import ray
from oneiros.platform.bench.null_env import NULL_ENV
from oneiros.platform.engine import WorldModelConfig


def main(folder: Path, runners: int, step_ms: float) -> None:
    stopped = []
    # Ray takes a driver that cannot look outside to be on the head, where a new head would look for it in vain.
    ray.init(log_to_driver=False, _node_ip_address=os.environ["HOST_ADDRESS"])
    config = (
        WorldModelConfig(agent="linear_agent:LinearAgent")
        .environment(NULL_ENV, env_config={"step_ms": step_ms, "waits": True, "length": 50})
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


main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))

"""How collection grows with env runners, around an environment that sleeps as a real one would.

    python tests/benchmarks/scaling.py --json tests/benchmarks/results/scaling.json

Each runner steps one environment; efficiency is env steps/s over what one runner alone reached times their number. With
the learner on, updates run in a process of their own as fast as the train ratio allows, on the same cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from oneiros.platform.bench.machine import describe
from oneiros.platform.bench.null_env import NULL_ENV
from oneiros.platform.engine import DreamerV3Config

WARM_UP_S, WINDOW_S = 4.0, 8.0


def measure(runners: int, step_ms: float, learns: bool) -> dict[str, Any]:
    """Env steps/s and updates/s of ``runners`` runners, and how busy the machine was."""
    config = (
        DreamerV3Config()
        .environment(NULL_ENV, env_config={"kind": "state", "step_ms": step_ms, "waits": True})
        .env_runners(
            num_env_runners=runners, num_envs_per_env_runner=1, num_cpus_per_env_runner=0.01, rollout_fragment_length=8
        )
        .learners(num_learners=1, num_cpus_per_learner=0.5)
        .training(
            size="1m",
            deter=64,
            hidden=32,
            units=32,
            groups=8,
            classes=8,
            batch_length=32,
            precision="float32",
            train_ratio=32,
            learning_starts=200 if learns else 10**9,
        )
        .replay(capacity=100_000)
        .reporting(min_time_s_per_iteration=0.5)
        .debugging(seed=0)
    )
    config.num_cpus_for_main_process = 0.1
    algorithm = config.build_algo()
    try:
        end = time.monotonic() + WARM_UP_S
        while time.monotonic() < end or (learns and algorithm.updates == 0):
            algorithm.train()
        psutil.cpu_percent()
        start, steps, updates = time.monotonic(), algorithm.env_steps, algorithm.updates
        while time.monotonic() < start + WINDOW_S:
            algorithm.train()
        seconds = time.monotonic() - start
        return {
            "runners": runners,
            "step_ms": step_ms,
            "learner": learns,
            "env_steps_per_s": round((algorithm.env_steps - steps) / seconds, 1),
            "updates_per_s": round((algorithm.updates - updates) / seconds, 2),
            "cpu_percent": psutil.cpu_percent(),
        }
    finally:
        algorithm.stop()


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--step-ms", type=float, nargs="+", default=[5.0, 20.0, 50.0])
    parser.add_argument("--learner", choices=["off", "on", "both"], default="both")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows: list[dict[str, Any]] = []
    for learns in {"off": [False], "on": [True], "both": [False, True]}[arguments.learner]:
        for step_ms in arguments.step_ms:
            alone = None
            for runners in arguments.runners:
                row = measure(runners, step_ms, learns)
                alone = alone or row["env_steps_per_s"] / runners
                row["efficiency"] = round(row["env_steps_per_s"] / (alone * runners), 3)
                rows.append(row)
                print(row, flush=True)
                report = {"what": __doc__, "machine": describe(torch.device("cpu")), "rows": rows}
                arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    ray.shutdown()


if __name__ == "__main__":
    main()

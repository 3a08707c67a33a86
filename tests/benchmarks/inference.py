"""Acting in every env runner against acting for all of them on the learner's device, in turns.

    python tests/benchmarks/inference.py --json tests/benchmarks/results/inference.json

Environments cost nothing and nobody learns, so that what is compared is acting: env steps, processor time by kind of
process, memory, and the bytes that go over a link.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from oneiros.platform.bench.machine import describe
from oneiros.platform.bench.null_env import NULL_ENV, NullEnv
from oneiros.platform.engine import DreamerV3Config
from oneiros.platform.engine.inference import PolicyCopy, Request
from oneiros.platform.training.agents import build_agent
from soak_processes import Processes

WARM_UP_S = 5.0
NEVER = 10**12


def settings(inference: str, arguments: argparse.Namespace) -> DreamerV3Config:
    """A training that never learns."""
    config = (
        DreamerV3Config()
        .environment(NULL_ENV, env_config={"kind": arguments.obs})
        .env_runners(
            num_env_runners=arguments.runners,
            num_envs_per_env_runner=arguments.envs,
            num_cpus_per_env_runner=0.01,
            rollout_fragment_length=16,
            inference=inference,
        )
        .learners(num_learners=1, num_cpus_per_learner=0.5)
        .training(size=arguments.size, compile="off", precision="float32", learning_starts=NEVER)
        .replay(capacity=2_000)
        .reporting(min_time_s_per_iteration=0.5)
        .debugging(seed=0)
    )
    config.num_cpus_for_main_process = 0.1
    return config


def measure(inference: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps and processor seconds of one stretch."""
    algorithm = settings(inference, arguments).build_algo()
    try:
        end = time.perf_counter() + WARM_UP_S
        while time.perf_counter() < end or algorithm.env_steps < 4 * arguments.runners * arguments.envs:
            algorithm.train()
        processes = Processes()
        processes.look(os.getpid())
        steps, busy, start = algorithm.env_steps, processes.seconds(), time.perf_counter()
        while time.perf_counter() < start + arguments.window:
            algorithm.train()
        seconds, steps = time.perf_counter() - start, algorithm.env_steps - steps
        used = {role: after - busy[role] for role, after in processes.seconds().items()}
        return {
            "inference": inference,
            "env_steps_per_s": steps / seconds,
            "cpu_ms_per_step": {role: 1e3 * value / steps for role, value in used.items() if value},
            "cpu_ms_per_step_in_all": 1e3 * sum(used.values()) / steps,
            "runner_mb": processes.sample()["runner_mb"] / arguments.runners,
        }
    finally:
        algorithm.stop()


def sizes(arguments: argparse.Namespace) -> dict[str, int]:
    """Bytes of a set of weights, and of a step's question and answer for one environment."""
    config = settings("runner", arguments)
    env = NullEnv(kind=arguments.obs)
    agent = build_agent(
        "dreamerv3", config.hyperparameters(), env.observation_space, env.action_space, seed=0, role="policy"
    )
    state = {key: value.numpy() for key, value in agent.initial_state(1).items()}
    asked = Request({"obs": env.reset()[0][None]}, np.ones(1, np.bool_), state)
    (told,) = PolicyCopy(agent, "train").answer([asked])
    return {
        "weights": sum(value.nbytes for value in agent.policy_state().values()),
        "observation": asked.obs["obs"].nbytes,
        "state": sum(value.nbytes for value in state.values()),
        "question": sum(value.nbytes for part in (asked.obs, asked.state) for value in part.values()),
        "answer": sum(value.nbytes for part in (told.action, told.state, told.latents) for value in part.values()),
    }


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, default=4)
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--size", default="12m")
    parser.add_argument("--obs", choices=["state", "image"], default="image")
    parser.add_argument("--window", type=float, default=20.0, help="seconds of a stretch")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows = []
    for _ in range(arguments.turns):
        for inference in ("runner", "learner"):
            rows.append(measure(inference, arguments))
            print(rows[-1], flush=True)
    ray.shutdown()
    medians = {
        inference: {
            name: statistics.median(row[name] for row in rows if row["inference"] == inference)
            for name in ("env_steps_per_s", "cpu_ms_per_step_in_all", "runner_mb")
        }
        for inference in ("runner", "learner")
    }
    report = {
        "what": __doc__,
        "settings": {key: value for key, value in vars(arguments).items() if key != "json"},
        "machine": describe(torch.device("cpu")),
        "bytes": sizes(arguments),
        "medians": medians,
        "rows": rows,
    }
    print(json.dumps({"bytes": report["bytes"], "medians": medians}, indent=1))
    arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

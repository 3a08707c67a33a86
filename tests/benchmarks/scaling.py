"""How collection grows with env runners, around an environment that sleeps as a real one would.

    python tests/benchmarks/scaling.py --json tests/benchmarks/results/scaling.json

Each runner steps one environment; efficiency is env steps/s over what one runner alone reached times their number. With
the learner on, a process of its own takes the updates that the train ratio asks for, on the same cores.

What bounds a row: ``memory`` or ``processors`` where these are nearly all in use, ``learner`` where collection waited
for updates, else ``environment``: the sleep itself.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from oneiros.platform.bench.machine import describe
from oneiros.platform.bench.null_env import NULL_ENV
from oneiros.platform.engine import DreamerV3, DreamerV3Config
from oneiros.platform.training.ratio import TrainRatio
from soak_processes import Processes

SETTLE_S = 2.5
NEVER = 10**12
BUSY_PERCENT, FULL_PERCENT, WAITED_SHARE = 85.0, 90.0, 0.25


class Cluster:
    """Some runners and a learner, whose environments and learning are changed while they run."""

    def __init__(self, runners: int, arguments: argparse.Namespace) -> None:
        config = (
            DreamerV3Config()
            .environment(NULL_ENV, env_config={"kind": "state", "step_ms": 1.0, "waits": True})
            .env_runners(
                num_env_runners=runners,
                num_envs_per_env_runner=1,
                num_cpus_per_env_runner=0.01,
                rollout_fragment_length=arguments.fragment,
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
                compile="off",
                train_ratio=arguments.train_ratio,
                learning_starts=NEVER,
            )
            .replay(capacity=100_000)
            .reporting(min_time_s_per_iteration=0.5)
            .debugging(seed=0)
        )
        config.num_cpus_for_main_process = 0.1
        self.runners = runners
        self.window_s = arguments.window
        self.algorithm = config.build_algo()
        assert isinstance(self.algorithm, DreamerV3) and self.algorithm.flow is not None
        self.flow = self.algorithm.flow
        self.processes = Processes()

    def measure(self, step_ms: float, learns: bool) -> dict[str, Any]:
        """Env steps/s and updates/s, and how busy the machine was."""
        self._sleep(step_ms)
        self._learn(learns)
        self._train(SETTLE_S)
        while learns and self.algorithm.updates == 0:
            self._train(0.5)
        self.processes.look(os.getpid())
        before, busy, updates, cpu = self._steps(), self._busy(), self.algorithm.updates, psutil.cpu_times()
        start = time.perf_counter()
        waited = self._train(self.window_s)
        seconds = time.perf_counter() - start
        after, busy_after, cpu_after = self._steps(), self._busy(), psutil.cpu_times()
        steps_per_s = sum((b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(before, after, strict=True))
        used = sum(cpu_after) - sum(cpu) - (cpu_after.idle - cpu.idle) - (cpu_after.iowait - cpu.iowait)
        percent = 100 * used / (sum(cpu_after) - sum(cpu))
        row = {
            "runners": self.runners,
            "step_ms": step_ms,
            "learner": learns,
            "env_steps_per_s": round(steps_per_s, 1),
            "updates_per_s": round((self.algorithm.updates - updates) / seconds, 2),
            "cpu_percent": round(percent, 1),
            "memory_mb": self.processes.sample()["memory_mb"],
            "memory_percent": psutil.virtual_memory().percent,
            "cpu_ms_per_step": {
                role: round(1e3 * (busy_after[role] - busy[role]) / seconds / steps_per_s, 2) for role in busy
            },
        }
        return {**row, "bound": _bound(row, waited)}

    def close(self) -> None:
        """End all processes."""
        self.algorithm.stop()

    def _train(self, seconds: float) -> float:
        """Go on for some time; returns in which share of it collection waited for the learner."""
        end, rounds, waited = time.perf_counter() + seconds, 0, 0
        while time.perf_counter() < end:
            self.algorithm.train()
            rounds += 1
            waited += self.flow.backlog > self.flow.bound
        return waited / rounds

    def _sleep(self, step_ms: float) -> None:
        def change(runner: Any) -> None:
            for env in runner.env.envs:
                env.unwrapped._step_s = step_ms / 1e3

        self.algorithm.env_runner_group.foreach_env_runner(change, local_env_runner=False)

    def _learn(self, learns: bool) -> None:
        if learns == self.flow.ratio.started:
            return
        self.flow.ratio = TrainRatio(self.flow.ratio.ratio, self.flow.ratio.rows_per_update)
        if learns:
            self.flow.ratio.start(self.algorithm.env_steps)

    def _steps(self) -> list[tuple[float, int]]:
        """When each runner had taken how many steps, by the machine's one clock."""
        counted: list[tuple[float, int]] = self.algorithm.env_runner_group.foreach_env_runner(
            lambda runner: (time.perf_counter(), runner.num_env_steps_sampled_lifetime), local_env_runner=False
        )
        return counted

    def _busy(self) -> dict[str, float]:
        """Processor seconds that each kind of process has used."""
        return self.processes.seconds()


def _bound(row: dict[str, Any], waited: float) -> str:
    if row["memory_percent"] >= FULL_PERCENT:
        return "memory"
    if row["cpu_percent"] >= BUSY_PERCENT:
        return "processors"
    return "learner" if waited > WAITED_SHARE else "environment"


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--step-ms", type=float, nargs="+", default=[5.0, 20.0, 50.0])
    parser.add_argument("--learner", choices=["off", "on", "both"], default="both")
    parser.add_argument("--train-ratio", type=float, default=4.0)
    parser.add_argument("--fragment", type=int, default=16, help="steps of a chunk")
    parser.add_argument("--window", type=float, default=10.0, help="seconds that a row is measured for")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    began = time.monotonic()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows: list[dict[str, Any]] = []
    alone: dict[tuple[float, bool], float] = {}
    for runners in arguments.runners:
        cluster = Cluster(runners, arguments)
        try:
            for learns in {"off": [False], "on": [True], "both": [False, True]}[arguments.learner]:
                for step_ms in arguments.step_ms:
                    row = cluster.measure(step_ms, learns)
                    one = alone.setdefault((step_ms, learns), row["env_steps_per_s"] / runners)
                    row["efficiency"] = round(row["env_steps_per_s"] / (one * runners), 3)
                    rows.append(row)
                    print(row, flush=True)
                    report = {
                        "what": __doc__,
                        "settings": {"train_ratio": arguments.train_ratio, "fragment": arguments.fragment},
                        "machine": describe(torch.device("cpu")),
                        "minutes": round((time.monotonic() - began) / 60, 1),
                        "rows": rows,
                    }
                    arguments.json.write_text(json.dumps(report, indent=1) + "\n")
        finally:
            cluster.close()
    ray.shutdown()


if __name__ == "__main__":
    main()

"""How long until CartPole-v1 is solved (a mean return of 475), here and with RLlib's own DreamerV3, one thread each.

    python tests/benchmarks/cartpole_beside_rllib.py --processor-seconds 3600 --json cartpole-beside-rllib.json

RLlib's runs with the model size that its documentation gives for CartPole (XS) and a training ratio that can be chosen
(``--training-ratio``; 1024 there, ours is 128), and is solved when the mean of its last 10 training episodes reaches
475. Ours runs with the preset of ``make demo`` and is solved when 20 evaluation episodes do. Both are told in processor
time, which other work disturbs less, and in wall time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

SOLVED = 475.0
EPISODES = 10
POINTS = 60
BATCH_STEPS = 16 * 64
"""What RLlib's replays in an update."""


class Clock:
    """Processor and wall seconds since it was made, of this process and of children that have ended."""

    def __init__(self) -> None:
        self._processor, self._wall = self._used(), time.monotonic()

    @staticmethod
    def _used() -> float:
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, who))

    def read(self) -> dict[str, float]:
        """``processor_seconds`` and ``wall_seconds``."""
        return {
            "processor_seconds": round(self._used() - self._processor, 1),
            "wall_seconds": round(time.monotonic() - self._wall, 1),
        }


def run_rllib(processor_seconds: float, training_ratio: float, seed: int, report: Path | None) -> dict[str, Any]:
    """Train RLlib's DreamerV3 in this process until it is solved or has used so much processor time."""
    import ray
    import torch
    from ray.rllib.algorithms.dreamerv3 import DreamerV3Config

    torch.set_num_threads(1)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    config = DreamerV3Config().environment("CartPole-v1").training(model_size="XS", training_ratio=training_ratio)
    # An iteration takes so many steps, and one update at least.
    config.env_runners(rollout_fragment_length=max(1, round(BATCH_STEPS / training_ratio)))
    algorithm = config.debugging(seed=seed).build_algo()
    clock, returns, curve, found = Clock(), deque[float](maxlen=EPISODES), [], False
    env_steps = 0
    while not found and clock.read()["processor_seconds"] < processor_seconds:
        result = algorithm.train()["env_runners"]
        env_steps = int(result["num_env_steps_sampled_lifetime"])
        # An iteration tells the mean return of the episodes that ended in it.
        returns.extend([float(result["episode_return_mean"])] * int(result["num_episodes"]))
        mean = sum(returns) / len(returns) if returns else math.nan
        curve.append({"env_steps": env_steps, "return": round(mean, 1), **clock.read()})
        found = len(returns) == EPISODES and mean >= SOLVED
        if report is not None:
            report.write_text(json.dumps(curve[-1]))
    algorithm.stop()
    every = max(1, len(curve) // POINTS)
    kept = [point for point in (*curve[::every], curve[-1]) if not math.isnan(point["return"])]
    how = {"model_size": "XS", "training_ratio": training_ratio, "ray": ray.__version__}
    return {"solved": found, "env_steps": env_steps, **clock.read(), **how, "curve": kept}


def run_ours(seed: int) -> dict[str, Any]:
    """Train ours in a process of its own, start-up and evaluations counted in."""
    with tempfile.TemporaryDirectory() as directory:
        words = ["train", "CartPole-v1", "--preset", "demo", "--engine", "local", "--seed", str(seed)]
        settings = ("tracking.mlflow=false", f"stop_at_return={SOLVED:g}", "evaluation.episodes=20", "max_seconds=7200")
        for setting in settings:
            words += ["--set", setting]
        command = [str(Path(sys.executable).with_name("oneiros")), *words, "--run-dir", f"{directory}/run"]
        clock = Clock()
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        used = clock.read()
        evaluation = json.loads((Path(directory) / "run/evaluation.json").read_text())
    score = evaluation["return_mean"]
    shown = " ".join(["oneiros", *words])
    return {"solved": score >= SOLVED, "env_steps": evaluation["env_steps"], "return": score, **used, "command": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processor-seconds", type=float, default=7200, help="what RLlib's is given")
    parser.add_argument("--training-ratio", type=float, default=1024, help="replayed steps an env step, RLlib's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["ours", "rllib"])
    parser.add_argument("--report", type=Path, help="where to keep how far RLlib's is")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    found: dict[str, Any] = {"task": "CartPole-v1", "solved_at": SOLVED, "seed": asked.seed, "threads": 1}
    found["cpu_count"] = os.cpu_count()
    if asked.only != "rllib":
        found["oneiros"] = run_ours(asked.seed)
    if asked.only != "ours":
        found["rllib"] = run_rllib(asked.processor_seconds, asked.training_ratio, asked.seed, asked.report)
        found["rllib"]["given_processor_seconds"] = asked.processor_seconds
    asked.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Steps a second of Craftax, beside Crafter, on one core, with random actions.

    taskset -c 0 python tests/benchmarks/craftax_speed.py

writes ``tests/benchmarks/results/craftax-speed.json``. Blocks of each alternate in one process, so that whatever else
the machine does slows all of them; what counts are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from oneiros.envs import registry
from oneiros.platform.tracking.provenance import provenance

WHAT = {
    "craftax/symbolic, 64": ("craftax/symbolic", 64, {}),
    "crafter/reward, 8": ("crafter/reward", 8, {}),
}
PIXELS: dict[str, Any] = {"craftax/pixels, 8": ("craftax/pixels", 8, {"size": 64})}


class Runner:
    """One kind of environments, stepped in blocks."""

    def __init__(self, env_id: str, envs: int, options: dict[str, Any]) -> None:
        start = time.perf_counter()
        self.vector, self.envs = registry.make_vector(env_id, envs, "sync", 0, **options), envs
        self.rng = np.random.default_rng(0)
        self.vector.reset()
        self.actions = int(self.vector.single_action_space.n)  # type: ignore[attr-defined]
        self.block(1.0)
        self.ready = time.perf_counter() - start
        self.wall: list[float] = []
        self.processor: list[float] = []

    def block(self, seconds: float) -> tuple[float, float]:
        """Steps a second of wall and of processor time."""
        start, used, steps = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds or steps == 0:
            self.vector.step(self.rng.integers(self.actions, size=self.envs))
            steps += self.envs
        return steps / (time.perf_counter() - start), steps / (time.process_time() - used)

    def measure(self, seconds: float) -> None:
        """One more block."""
        wall, processor = self.block(seconds)
        self.wall.append(wall)
        self.processor.append(processor)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("--name", default="craftax-speed")
    arguments = parser.parse_args()
    runners = {name: Runner(*of) for name, of in (WHAT | (PIXELS if arguments.pixels else {})).items()}
    for _ in range(arguments.blocks):
        for runner in runners.values():
            runner.measure(arguments.seconds)
    crafter = float(np.median(runners["crafter/reward, 8"].processor))
    result = {
        "what": "Random actions, resets included; the machine was busy with other work, so only ratios mean something. "
        "Seconds until ready are with Craftax compiled before: the cache had it.",
        "blocks": arguments.blocks,
        "seconds_a_block": arguments.seconds,
        "cores": len(os.sched_getaffinity(0)),
        "environments": {
            name: {
                "steps_a_second_of_wall_time": round(float(np.median(runner.wall)), 1),
                "steps_a_second_of_processor_time": round(float(np.median(runner.processor)), 1),
                "times_crafter": round(float(np.median(runner.processor)) / crafter, 2),
                "seconds_until_ready": round(runner.ready, 1),
            }
            for name, runner in runners.items()
        },
    }
    path = Path(__file__).parent / "results" / f"{arguments.name}.json"
    about = provenance()
    path.write_text(
        json.dumps({**result, **{key: about[key] for key in ("command", "git", "machine", "versions")}}, indent=1)
        + "\n"
    )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

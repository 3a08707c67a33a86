"""Steps a second of one game, walking in open land and in jungle, and of two at once.

    python tests/benchmarks/luanti_speed.py

writes ``tests/benchmarks/results/luanti-speed.json``: medians over blocks of steps of the wall time, and the processor
time of all of the game's threads, which is what a step costs when other programs are running too.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import psutil
from luanti_record import write
from oneiros.envs import registry
from oneiros.envs.minecraft.actions import NAMES

OPEN_LAND, JUNGLE = 7, 3
BLOCK = 50


def action(step: int) -> int:
    """Walk and jump ahead, turn now and then."""
    return NAMES.index("turn_left" if step % 40 == 39 else "jump" if step % 10 == 0 else "forward")


def one(world: int, steps: int, view: int) -> dict[str, Any]:
    """A single game."""
    env = registry.make("luanti/diamond", worlds=[world], spare=False, view=view)
    try:
        start = time.perf_counter()
        env.reset(seed=0)
        reset = time.perf_counter() - start
        game = psutil.Process(env.unwrapped.instance.process.pid)  # type: ignore[attr-defined]
        before, used, blocks = game.cpu_times(), time.process_time(), []
        for block in range(steps // BLOCK):
            start = time.perf_counter()
            for step in range(BLOCK):
                if any(env.step(np.int64(action(block * BLOCK + step)))[2:4]):
                    raise SystemExit(f"world {world}: the episode ended")
            blocks.append(BLOCK / (time.perf_counter() - start))
        after = game.cpu_times()
        spent = after.user - before.user + after.system - before.system
        return {
            "world": world,
            "view": view,
            "wall_steps_a_second": {"median": round(float(np.median(blocks)), 1), "best": round(max(blocks), 1)},
            "processor_ms_a_step": {
                "game": round(1000 * spent / steps, 2),
                "driver": round(1000 * (time.process_time() - used) / steps, 2),
            },
            "steps_a_second_of_processor_time": round(steps / (spent + time.process_time() - used), 1),
            "reset_seconds": round(reset, 2),
            "processor_seconds_to_start": round(before.user + before.system, 2),
            "memory_mb": round(game.memory_info().rss / 2**20),
        }
    finally:
        env.close()


def several(count: int, steps: int) -> dict[str, Any]:
    """Games of one vector, which wait for each other at every step; luanti_cores.py measures such as do not."""
    worlds = {"worlds": [OPEN_LAND], "spare": False}
    env = registry.make_vector("luanti/diamond", count, "async", seed=0, **worlds)
    try:
        env.reset()
        start = time.perf_counter()
        for step in range(steps):
            env.step(np.full(count, action(step)))
        return {"games": count, "wall_steps_a_second": round(count * steps / (time.perf_counter() - start), 1)}
    finally:
        env.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--name", default="luanti-speed")
    arguments = parser.parse_args()
    result = {
        "what": "Walking, jumping and turning; 64 x 64 pixels; the machine may have been busy with other work.",
        "steps": arguments.steps,
        "open_land": [one(OPEN_LAND, arguments.steps, view) for view in (24, 40)],
        "jungle": [one(JUNGLE, arguments.steps, view) for view in (24, 40)],
        "several": [several(count, arguments.steps) for count in (1, 2)],
    }
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()

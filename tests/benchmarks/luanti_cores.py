"""One game on one core, and two games on two: each with a driver of its own that waits for no other.

    python tests/benchmarks/luanti_cores.py

writes ``tests/benchmarks/results/luanti-cores.json``. Driver, game and X server of one world stay on one core. All take
the same steps in the same world; counted are those between the first of any game and the end of the first that is done.
What two cores that share nothing but the machine make of it is measured beside it, by loops that only count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
from luanti_record import write
from luanti_speed import JUNGLE, OPEN_LAND, action
from oneiros.envs import registry
from oneiros.platform.bench.machine import OtherLoad

MOST_SECONDS = 300.0
WARM_UP = 40
COUNT = 200_000


def drive(core: int, world: int, steps: int, barrier: Barrier, results: Any) -> None:
    """One game on one core; puts the time at which each of its steps was done, the start first."""
    os.sched_setaffinity(0, {core})
    env = registry.make("luanti/diamond", worlds=[world], spare=False)
    try:
        env.reset(seed=0)
        for step in range(-WARM_UP, 0):
            env.step(np.int64(action(step % WARM_UP)))
        barrier.wait(MOST_SECONDS)
        times = [time.monotonic()]
        for step in range(steps):
            if any(env.step(np.int64(action(step)))[2:4]):
                raise SystemExit(f"world {world}: the episode ended")
            times.append(time.monotonic())
        results.put(times)
        barrier.wait(MOST_SECONDS)
    finally:
        env.close()


def count(core: int, world: int, steps: int, barrier: Barrier, results: Any) -> None:
    """As ``drive``, of nothing but a loop, in as many turns as there would be steps."""
    os.sched_setaffinity(0, {core})
    barrier.wait(MOST_SECONDS)
    times = [time.monotonic()]
    for _ in range(steps):
        for _ in range(COUNT):
            pass
        times.append(time.monotonic())
    results.put(times)
    barrier.wait(MOST_SECONDS)


def together(work: Any, cores: list[int], world: int, steps: int) -> dict[str, float]:
    """Steps a second of all that run at once, while all of them run."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(cores) + 1), context.Queue()
    drivers = [context.Process(target=work, args=(core, world, steps, barrier, results)) for core in cores]
    for driver in drivers:
        driver.start()
    try:
        barrier.wait(MOST_SECONDS)
        with OtherLoad() as others:
            times = [np.array(results.get(timeout=MOST_SECONDS)) for _ in drivers]
        barrier.wait(MOST_SECONDS)
    except BaseException:
        barrier.abort()
        raise
    finally:
        for driver in drivers:
            driver.join(MOST_SECONDS)
    start, end = min(t[0] for t in times), min(t[-1] for t in times)
    done = sum(int((t[1:] <= end).sum()) for t in times)
    return {"steps_a_second": done / (end - start), "others": others.share or 0.0}


def scaling(work: Any, cores: list[int], world: int, steps: int, rounds: int) -> dict[str, Any]:
    """Each core alone and all of them at once, in turns, so that what else the machine does meets all alike."""
    alone: list[float] = []
    at_once: list[float] = []
    others: list[float] = []
    for _ in range(rounds):
        for chosen in [[core] for core in cores] + [cores]:
            found = together(work, chosen, world, steps)
            (alone if len(chosen) == 1 else at_once).append(found["steps_a_second"])
            others.append(found["others"])
    one, all_of_them = float(np.median(alone)), float(np.median(at_once))
    return {
        "steps": steps,
        "one_on_one_core": {"median": round(one, 1), "each": [round(rate, 1) for rate in alone]},
        "one_on_each_core": {"median": round(all_of_them, 1), "each": [round(rate, 1) for rate in at_once]},
        "times_as_many": round(all_of_them / one, 3),
        "share_of_processor_time_that_others_took": [round(share, 3) for share in others],
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=480, help="960 walk around once")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--name", default="luanti-cores")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this needs two cores")
    result = {
        "what": "Walking, jumping and turning; 64 x 64 pixels. Each game and its driver on a core of their own.",
        "open_land": scaling(drive, cores, OPEN_LAND, arguments.steps, arguments.rounds),
        "jungle": scaling(drive, cores, JUNGLE, arguments.steps, arguments.rounds),
        "loops_that_only_count": scaling(count, cores, 0, 400, arguments.rounds),
    }
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()

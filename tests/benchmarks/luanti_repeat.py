"""The same seed and actions in several processes: what is equal bit for bit, and what is not.

    python tests/benchmarks/luanti_repeat.py

writes ``tests/benchmarks/results/luanti-repeat.json``: for each world, what each further process saw beside the first,
step by step. The first process plays on one core, so that its game's threads take turns; the others on all cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from luanti_record import write
from oneiros.envs import registry
from oneiros.envs.luanti import settings
from oneiros.envs.luanti.memory import STATE
from oneiros.envs.luanti.scripted import Player
from oneiros.envs.minecraft.actions import NAMES
from oneiros.platform.bench.machine import OtherLoad

REASON = (
    "Not proven. In the one pair of episodes that was looked at (jungle), it was the light of what lies behind fog. By "
    "its source the engine takes that light from the map along 50 directions, which each process draws once from a "
    "generator that all its threads draw from."
)
DAY_STEPS = 24_000
DARK = 0.285
"""How far from noon it is night, as a share of a day; episodes begin in the morning, at a quarter of a day."""
CASES: dict[str, dict[str, Any]] = {
    "open land": {"world": 7},
    "jungle": {"world": 3},
    "held-out world": {"world": 2_000_002},
    "open land, a day in as many steps": {"world": 7, "whole_day": True},
    "jungle, a day in as many steps": {"world": 3, "whole_day": True},
    "the scripted player": {"world": 2_000_004, "scripted": True},
}
WALKING = ("forward", "left", "right", "back", "jump")


def action(rng: np.random.Generator) -> tuple[int, int]:
    """Any of the 25 actions, and for how many steps: walking more often and for longer, to get to new land."""
    if rng.random() < 0.4:
        return NAMES.index(rng.choice(WALKING, p=(0.6, 0.1, 0.1, 0.05, 0.15))), int(rng.integers(5, 25))
    return int(rng.integers(len(NAMES))), int(rng.integers(1, 4))


def play(world: int, steps: int, cores: list[int], scripted: bool = False, whole_day: bool = False) -> dict[str, Any]:
    """One episode, or its beginning: everything that is observed, one row a step."""
    os.sched_setaffinity(0, cores)
    if whole_day:
        ordinary = int(str(settings.FIXED["time_speed"]))
        settings.FIXED["time_speed"] = ordinary * DAY_STEPS // steps  # type: ignore[index]
    rows: list[dict[str, Any]] = []
    env = registry.make("luanti/diamond", worlds=[world], spare=False, oracle=scripted)

    def keep(taken: int, outcome: Any) -> None:
        observation, reward, terminated, truncated, info = outcome
        if "episode_fault" in info:
            raise SystemExit(f"world {world}: {info['episode_fault']}")
        state = dict(zip(STATE, env.unwrapped.instance.memory.state, strict=True))  # type: ignore[attr-defined]
        rows.append({**observation, "reward": reward, "ends": terminated or truncated, "action": taken, **state})

    try:
        with OtherLoad() as others:
            observation, _ = env.reset(seed=0)
            keep(-1, (observation, 0.0, False, False, {}))
            if scripted:
                Player(env.unwrapped, observation, steps, keep).play()  # type: ignore[arg-type]
            else:
                rng = np.random.default_rng(0)
                while len(rows) <= steps and not rows[-1]["ends"]:
                    chosen, times = action(rng)
                    for _ in range(times):
                        keep(chosen, env.step(np.int64(chosen)))
                        if rows[-1]["ends"] or len(rows) > steps:
                            break
    finally:
        env.close()
    return {"rows": {name: np.array([row[name] for row in rows]) for name in rows[0]}, "others": others.share}


def compare(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What of one process's rows is not that of another's, and by how much pictures differ."""
    length = min(len(first["image"]), len(other["image"]))
    differ = {
        name: np.flatnonzero((first[name][:length] != other[name][:length]).reshape(length, -1).any(1))
        for name in first
        if name != "image"
    }
    apart = np.abs(first["image"][:length].astype(np.int16) - other["image"][:length])
    pixels = (apart > 0).any(-1).sum((1, 2))
    pictures = np.flatnonzero(pixels)
    found: dict[str, Any] = {
        "steps": length - 1,
        "as_long": len(first["image"]) == len(other["image"]),
        "all_but_pictures_equal": not any(map(len, differ.values())),
        "share_of_frames_equal": round(1 - len(pictures) / length, 5),
    }
    if any(map(len, differ.values())):
        found["first_step_that_differs"] = {name: int(steps[0]) for name, steps in differ.items() if len(steps)}
    if len(pictures):
        found["frames_that_differ"] = {
            "steps": [int(step) for step in pictures[:100]],
            "median_share_of_pixels": round(float(np.median(pixels[pictures])) / pixels_of(first), 5),
            "most_pixels": int(pixels.max()),
            "greatest_difference_of_255": int(apart.max()),
        }
    return found


def pixels_of(rows: dict[str, Any]) -> int:
    """How many pixels a picture has."""
    return int(rows["image"].shape[1] * rows["image"].shape[2])


def repeat(case: dict[str, Any], steps: int, processes: int) -> dict[str, Any]:
    """Play one case in several new processes, one after another, and compare them with the first."""
    cores = sorted(os.sched_getaffinity(0))
    runs = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for process in range(processes):
            runs.append(pool.submit(play, steps=steps, cores=cores[:1] if process == 0 else cores, **case).result())
    rows = runs[0]["rows"]
    return {
        **case,
        "steps": len(rows["image"]) - 1,
        "different_pictures": len({picture.tobytes() for picture in rows["image"]}),
        "kinds_of_items_held": int((rows["inventory_max"][-1] > 0).sum()),
        "metres_walked": round(float(np.hypot(np.diff(rows["x"]), np.diff(rows["z"])).sum()), 1),
        "steps_at_night": int((np.abs(rows["time_of_day"] - 0.5) > DARK).sum()),
        "share_of_processor_time_that_others_took": [round(run["others"] or 0.0, 2) for run in runs],
        "beside_the_first_process": [compare(rows, run["rows"]) for run in runs[1:]],
    }


def main() -> None:
    """Play and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--name", default="luanti-repeat")
    arguments = parser.parse_args()
    cases = {}
    for name, case in CASES.items():
        cases[name] = repeat(case, arguments.steps, arguments.processes)
        print(name, cases[name], flush=True)
    compared = [found for case in cases.values() for found in case["beside_the_first_process"]]
    frames = sum(found["steps"] + 1 for found in compared)
    result = {
        "what": "Frames and everything else that is observed, compared step by step between processes.",
        "processes": arguments.processes,
        "why_pictures_differ": REASON,
        "frames_compared": frames,
        "share_of_frames_equal": round(
            sum(found["share_of_frames_equal"] * (found["steps"] + 1) for found in compared) / frames, 6
        ),
        "all_but_pictures_equal": all(found["all_but_pictures_equal"] and found["as_long"] for found in compared),
        "cases": cases,
    }
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()

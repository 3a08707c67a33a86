"""Let the scripted player go from nothing to a diamond, with the 25 actions only, and keep what it did.

    python tests/benchmarks/luanti_player.py 2000001 2000002 ... --video 2000001

writes ``tests/benchmarks/results/luanti-player.json``: for each world, a map seed of the engine, the step at which each
milestone was reached, and why the player stopped where it did not get to the diamond; and with ``--video``, a film of
that world's episode.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import imageio.v2 as imageio
import numpy as np
from luanti_record import RESULTS, write
from oneiros.envs import registry
from oneiros.envs.luanti.scripted import Player
from oneiros.envs.minecraft.progress import MILESTONES

FILM_SIDE, FILM_EVERY, FILM_RATE = 128, 3, 40


def play(world: int, most: int, film: Any = None) -> dict[str, Any]:
    """One episode; the inventory is empty at its beginning and nothing is ever given."""
    size = 64 if film is None else FILM_SIDE
    env = registry.make("luanti/diamond", worlds=[world], spare=False, oracle=True, size=size)
    total, last, fault = 0.0, False, ""
    counts = np.zeros(25, np.int64)

    def seen(action: int, outcome: Any) -> None:
        nonlocal total, last, fault
        total, last, fault = total + float(outcome[1]), bool(outcome[2]), outcome[4].get("fault", "")
        counts[action] += 1
        if film is not None and counts.sum() % FILM_EVERY == 0:
            film.append_data(outcome[0]["image"])

    start = time.monotonic()
    try:
        observation, _ = env.reset(seed=0)
        assert observation["inventory"].sum() == 0
        player = Player(env.unwrapped, observation, most, seen)  # type: ignore[arg-type]
        reached = player.play()
    finally:
        env.close()
    return {
        "world": world,
        "milestones": len(reached),
        "reached_at_step": reached,
        "return": round(total, 4),
        "steps": player.steps,
        "died": last,
        "seconds": round(time.monotonic() - start, 1),
        "stopped_because": fault or player.ending,
    }


def main() -> None:
    """Play every world that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", type=int, nargs="+")
    parser.add_argument("--most", type=int, default=12_000, help="steps after which the player gives up")
    parser.add_argument("--video", type=int, help="the world that is filmed")
    parser.add_argument("--name", default="luanti-player")
    arguments = parser.parse_args()
    runs = []
    for world in arguments.worlds:
        film = None
        if world == arguments.video:
            options = {"fps": FILM_RATE, "quality": 4, "macro_block_size": 16}
            film = imageio.get_writer(RESULTS / f"{arguments.name}.mp4", **options)
        runs.append(play(world, arguments.most, film))
        if film is not None:
            film.close()
        print(runs[-1], flush=True)
    complete = sum(run["milestones"] == len(MILESTONES) for run in runs)
    note = "A scripted player: it is told where things are, and gets them with the 25 actions only, from nothing."
    print(write(arguments.name, {"what": note, "worlds": len(runs), "complete": complete, "runs": runs}))


if __name__ == "__main__":
    main()

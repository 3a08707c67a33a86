"""What a player that chooses its actions at random reaches: the floor under every learnt result.

    python tests/benchmarks/luanti_random.py --episodes 50 --steps 1000

writes ``tests/benchmarks/results/luanti-random.json``: of the episodes, each in a held-out world of its own, the share
that reached each milestone, with a 95% interval (Wilson).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from luanti_record import write
from oneiros.envs import registry
from oneiros.envs.luanti.worlds import HELD_OUT
from oneiros.envs.minecraft.progress import LOG, MILESTONES
from oneiros.platform.rollout.shares import share_interval


def interval(successes: int, of: int) -> list[float]:
    """Wilson's 95% interval of a share."""
    return [round(end, 4) for end in share_interval(successes, of)]


def main() -> None:
    """Play the episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1000, help="steps of an episode; the task's own are 36,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="luanti-random")
    arguments = parser.parse_args()
    env = registry.make("luanti/diamond", worlds=HELD_OUT, time_limit=arguments.steps)
    rng = np.random.default_rng(arguments.seed)
    reached, returns, lengths, failures, deaths = [], [], [], 0, 0
    start = time.monotonic()
    try:
        for episode in range(arguments.episodes):
            env.reset(options={"world": HELD_OUT[episode]})
            total, length, over = 0.0, 0, False
            while not over:
                _, reward, terminated, truncated, info = env.step(rng.integers(25))
                total, length, over = total + float(reward), length + 1, terminated or truncated
            memory = env.unwrapped.summary()  # type: ignore[attr-defined]
            milestones = np.array([memory[LOG + name] for name in MILESTONES])
            failures += "fault" in info
            deaths += terminated
            reached.append(milestones)
            returns.append(total)
            lengths.append(length)
            print(episode, length, round(total, 3), int(milestones.sum()), flush=True)
    finally:
        env.close()
    counts = np.sum(reached, axis=0).astype(int)
    result = {
        "what": f"Uniformly random actions; episodes of {arguments.steps} steps in held-out worlds, not of 36,000.",
        "episodes": arguments.episodes,
        "steps_an_episode": arguments.steps,
        "seed": arguments.seed,
        "share_that_reached": {
            name: {"share": round(count / arguments.episodes, 4), "interval": interval(int(count), arguments.episodes)}
            for name, count in zip(MILESTONES, counts, strict=True)
        },
        "return_mean": round(float(np.mean(returns)), 4),
        "return_std": round(float(np.std(returns)), 4),
        "length_mean": round(float(np.mean(lengths)), 1),
        "deaths": int(deaths),
        "games_replaced": failures,
        "wall_seconds": round(time.monotonic() - start, 1),
    }
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()

"""What scripted listeners get in mpe/simple_speaker_listener: what a return there is to be compared with; prints JSON.

    python tests/benchmarks/speaker_listener_bounds.py --episodes 300

``goal``: told the goal, goes there. ``middle``: told nothing, goes to the middle of the landmarks, from where the goal
is nearest on average. ``stay``: does nothing.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from oneiros.envs import registry

NOTHING, LEFT, RIGHT, DOWN, UP = range(5)
COASTING = 0.25
"""Seconds for which a listener expects to go on as it does."""
CLOSE = 0.04


def choose(observation: dict[str, Any], who: str) -> int:
    """The action of the listener ``who``."""
    seen = observation["agent"]["listener_0"]["obs"]
    velocity, landmarks = seen[:2], seen[2:8].reshape(3, 2)
    if who == "stay":
        return NOTHING
    goal = int(observation["training"]["listener_0"]["belief"]["goal"])
    target = landmarks[goal] if who == "goal" else landmarks.mean(0)
    x, y = target - COASTING * velocity
    if max(abs(x), abs(y)) < CLOSE:
        return NOTHING
    if abs(x) > abs(y):
        return RIGHT if x > 0 else LEFT
    return UP if y > 0 else DOWN


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1_000_000)
    arguments = parser.parse_args()
    env = registry.make("mpe/simple_speaker_listener")
    found = {}
    for who in ("goal", "middle", "stay"):
        returns = []
        for episode in range(arguments.episodes):
            observation, _ = env.reset(seed=arguments.seed + episode)
            total, over = 0.0, False
            while not over:
                action = {"listener_0": choose(observation, who), "speaker_0": 0}
                observation, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                over = terminated or truncated
            returns.append(total)
        error = float(np.std(returns)) / arguments.episodes**0.5
        found[who] = {"return_mean": round(float(np.mean(returns)), 2), "standard_error": round(error, 2)}
    print(json.dumps({**vars(arguments), **found}, indent=1))


if __name__ == "__main__":
    main()

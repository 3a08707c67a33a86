"""Let the scripted player play a task in training worlds, and keep what it saw and did as a data set to learn from.

    python tests/benchmarks/luanti_demonstrations.py demonstrations --task log --episodes 100
    oneiros train luanti/log --prefill demonstrations --run-dir runs/log

The player is told where things are and does everything with the 25 actions, so each recorded step is one that an agent
could have taken; the steps in which it asks are recorded as the noops that they are. Only episodes in which it reached
its goal are kept, and how many it did not is said. Held-out worlds are never among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from luanti_random import interval
from luanti_record import write
from oneiros.envs import registry
from oneiros.envs.luanti.scripted import Player
from oneiros.envs.luanti.worlds import TRAIN
from oneiros.envs.minecraft.progress import MILESTONES
from oneiros.platform.data.episode import Episode
from oneiros.platform.data.npz_folder import write_folder


def play(env: Any, world: int, goal: str) -> tuple[Episode, bool]:
    """One episode in the world of this map seed, and whether the player got there."""
    observation, _ = env.reset(options={"world": world})
    observations, actions, rewards, ends = [observation], [], [], [False]

    def seen(action: int, outcome: Any) -> None:
        observations.append(outcome[0])
        actions.append(action)
        rewards.append(float(outcome[1]))
        ends.append(bool(outcome[2]))

    reached = Player(env.unwrapped, observation, seen=seen).play(goal)
    together = {key: np.stack([one[key] for one in observations]) for key in observation}
    return Episode(together, np.array(actions), np.array(rewards, np.float32), ends[-1]), goal in reached


class Recording:
    """Plays until enough episodes reached the goal; counts those that did not."""

    def __init__(self, env: Any, goal: str, episodes: int, seed: int) -> None:
        self.worlds: list[int] = []
        self.lengths: list[int] = []
        self.failed: list[int] = []
        self._env, self._goal, self._wanted = env, goal, episodes
        self._rng = np.random.default_rng(seed)

    def episodes(self) -> Iterator[Episode]:
        """The demonstrations."""
        while len(self.worlds) < self._wanted:
            world = int(self._rng.choice(TRAIN))
            episode, reached = play(self._env, world, self._goal)
            print(world, episode.steps, "reached" if reached else "not reached", flush=True)
            if not reached:
                self.failed.append(world)
                continue
            self.worlds.append(world)
            self.lengths.append(episode.steps)
            yield episode


def main() -> None:
    """Record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", type=Path, help="a new folder")
    parser.add_argument("--task", default="log", choices=["diamond", *MILESTONES])
    parser.add_argument("--goal", choices=MILESTONES, help="where the player stops; else the task's own milestone")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=500, help="steps after which an episode ends")
    parser.add_argument("--seed", type=int, default=0, help="of the worlds that are drawn")
    parser.add_argument("--name", default="luanti-demonstrations")
    arguments = parser.parse_args()
    env_id, goal = f"luanti/{arguments.task}", arguments.goal or arguments.task
    env = registry.make(env_id, oracle=True, spare=False, time_limit=arguments.steps, size=arguments.size)
    recording = Recording(env, goal, arguments.episodes, arguments.seed)
    start = time.monotonic()
    try:
        write_folder(arguments.to, recording.episodes(), (env.observation_space, env.action_space), env_id)
    finally:
        env.close()
    tried = len(recording.worlds) + len(recording.failed)
    result = {
        "what": f"Demonstrations of the scripted player in {env_id}, in training worlds only.",
        "goal": goal,
        "pixels_a_side": arguments.size,
        "steps_an_episode": arguments.steps,
        "seed": arguments.seed,
        "kept": len(recording.worlds),
        "steps_kept": sum(recording.lengths),
        "length_median": float(np.median(recording.lengths)),
        "share_that_reached": {
            "share": round(len(recording.worlds) / tried, 4),
            "interval": interval(len(recording.worlds), tried),
        },
        "worlds": recording.worlds,
        "worlds_not_reached": recording.failed,
        "wall_seconds": round(time.monotonic() - start, 1),
    }
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()

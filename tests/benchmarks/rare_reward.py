"""How soon each way to draw from replay teaches a reward that was met a few times, long ago.

    python tests/benchmarks/rare_reward.py

writes ``tests/benchmarks/results/rare-reward.json``. A corridor of 13 cells pays only at its end. The replay holds
8,000 steps of a random walk, which gets there in one episode of some 100, and then 72,000 steps of a walk that drifts
back and never does. Seeds whose walk never gets there are left out. From it Q-learning in a table learns: the least
learner there is, so that what is measured is the replay. Its temporal-difference errors are the signal that priorities
go by. Counted are the updates, of 16 sequences of 16 steps each, until its greedy policy walks to the end, and the
share of sequences that showed a reward until then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from functools import cache
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.algorithms.contract import Field
from oneiros.platform.replay import Replay

RESULTS = Path(__file__).parent / "results"
CELLS, LONGEST, EARLY, LATE = 13, 40, 8_000, 72_000
MOVES = np.array([1, -1, 0, 0])
DRIFTING = [0.15, 0.35, 0.25, 0.25]
LENGTH, BATCH, MOST_UPDATES, RATE, DISCOUNT = 16, 16, 4_000, 0.1, 0.97
MIXTURES = {
    "uniform": {"uniform": 1.0},
    "recency": {"uniform": 0.5, "recency": 0.5},
    "priority": {"uniform": 0.5, "priority": 0.5},
    "curious": {"uniform": 0.5, "curious": 0.5},
}


def walk(rng: np.random.Generator, steps: int, chances: list[float], rewarded: bool) -> dict[str, Any]:
    """Rows ``(1, T)`` of whole episodes, ``steps`` or a few more; those that reach the end only if ``rewarded``."""
    rows: dict[str, list[Any]] = {key: [] for key in ("obs", "action", "reward", "is_first", "is_last", "is_terminal")}
    while len(rows["obs"]) < steps:
        cells, actions = [0], []
        while len(actions) < LONGEST and cells[-1] < CELLS - 1:
            actions.append(int(rng.choice(4, p=chances)))
            cells.append(max(0, cells[-1] + int(MOVES[actions[-1]])))
        there = cells[-1] == CELLS - 1
        if there and not rewarded:
            continue
        middle = [False] * len(actions)
        rows["obs"] += cells
        rows["action"] += [*actions, 0]
        rows["reward"] += [0.0] * len(actions) + [float(there)]
        rows["is_first"] += [True, *middle]
        rows["is_last"] += [*middle, True]
        rows["is_terminal"] += [*middle, there]
    return {key: np.array(values)[None] for key, values in rows.items()}


@cache
def walks(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows that the replay begins with, and those that follow."""
    rng = np.random.default_rng(seed)
    return walk(rng, EARLY, [0.25] * 4, True), walk(rng, LATE, DRIFTING, False)


def filled(mixture: dict[str, float], seed: int) -> Replay:
    """The replay."""
    kinds = {"obs": np.int64, "action": np.int64, "reward": np.float32}
    kinds |= dict.fromkeys(("is_first", "is_last", "is_terminal"), np.bool_)
    fields = {key: Field((), np.dtype(kind)) for key, kind in kinds.items()}
    capacity = 2 * (EARLY + LATE)
    replay = Replay(
        fields, capacity=capacity, length=LENGTH, batch=BATCH, seed=seed, mixture=mixture, recency_half_life=LATE / 4
    )
    for rows in walks(seed):
        typed = {key: rows[key].astype(kinds[key]) for key in fields}
        replay.add(SimpleNamespace(rows=typed, streams=np.zeros(1, np.int64)), fresh=False)
    return replay


def arrives(table: NDArray[np.float64]) -> bool:
    """Whether the greedy policy walks to the end."""
    return bool((table[:-1].argmax(1) == 0).all() and (table[:-1, 0] > table[:-1, 1:].max(1)).all())


def learn(mixture: dict[str, float], seed: int) -> dict[str, Any]:
    """Q-learning from the replay until it has learnt, or for ``MOST_UPDATES``."""
    replay = filled(mixture, seed)
    table = np.zeros((CELLS, 4))
    rewarded = updates = 0
    while updates < MOST_UPDATES and not arrives(table):
        batch = replay.sample()
        cell, action, then = batch["obs"][:, :-1], batch["action"][:, :-1], batch["obs"][:, 1:]
        goes_on = ~batch["is_terminal"][:, 1:]
        target = batch["reward"][:, 1:] + DISCOUNT * goes_on * table[then].max(-1)
        error = (target - table[cell, action]) * ~batch["is_last"][:, :-1]
        # Each entry moves towards the mean of its targets in the batch.
        sums, counts = np.zeros_like(table), np.zeros_like(table)
        np.add.at(sums, (cell, action), error)
        np.add.at(counts, (cell, action), ~batch["is_last"][:, :-1])
        table += RATE * sums / np.maximum(counts, 1)
        replay.prioritise(batch["row_id"], np.abs(error).mean(1))
        rewarded += int((batch["reward"][:, 1:] > 0).any(1).sum())
        updates += 1
    return {
        "seed": seed,
        "rewards": int(walks(seed)[0]["reward"].sum()),
        "updates": updates,
        "learnt": arrives(table),
        "share_of_sequences_with_reward": round(rewarded / (BATCH * updates), 5),
    }


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--name", default="rare-reward")
    arguments = parser.parse_args()
    start, mixtures = time.process_time(), {}
    seeds = list(islice((seed for seed in count() if walks(seed)[0]["reward"].any()), arguments.seeds))
    for name, mixture in MIXTURES.items():
        runs = [learn(mixture, seed) for seed in seeds]
        updates = [run["updates"] for run in runs]
        mixtures[name] = {
            "shares": mixture,
            "learnt": sum(run["learnt"] for run in runs),
            "updates_quartiles": [float(value) for value in np.percentile(updates, [25, 50, 75])],
            "share_of_sequences_with_reward": round(
                float(np.mean([run["share_of_sequences_with_reward"] for run in runs])), 5
            ),
            "runs": runs,
        }
        print(name, {key: value for key, value in mixtures[name].items() if key != "runs"}, flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = {
        "what": "Updates of tabular Q-learning until a corridor whose reward was met a few times, long ago, is learnt.",
        "steps": {"rewarded": EARLY, "without_reward": LATE},
        "most_updates": MOST_UPDATES,
        "mixtures": mixtures,
        "processor_seconds": round(time.process_time() - start, 1),
        "commit": commit,
        "machine": {"cores": os.cpu_count()},
    }
    path = RESULTS / f"{arguments.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()

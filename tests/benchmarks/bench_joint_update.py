"""What a joint update of four agents costs beside one agent's, where the batch an agent is a quarter; prints JSON.

    python tests/benchmarks/bench_joint_update.py --size 1m --repeats 15

Both agents are in one process and take turns, so that whatever else the machine does falls on both; what counts is the
ratio of the median processor times of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.belief import Belief, Hyperparameters

NUMBERS, CHOICES, GOALS = 24, 6, 3


def build(
    agents: int, batch: int, length: int, size: str, channel: bool = False, weights: str = "shared"
) -> tuple[Belief, dict[str, torch.Tensor]]:
    """An agent of ``agents`` minds that all see ``NUMBERS`` numbers, and random rows for it."""
    obs: dict[str, spaces.Space[Any]] = {}
    action: dict[str, spaces.Space[Any]] = {}
    for name in (f"agent_{i}" for i in range(agents)):
        obs[f"agent/{name}/alive"] = spaces.Discrete(2)
        obs[f"agent/{name}/obs"] = spaces.Box(-np.inf, np.inf, (NUMBERS,), np.float32)
        obs[f"training/{name}/reward"] = spaces.Box(-np.inf, np.inf, (), np.float32)
        obs[f"training/{name}/terminal"] = spaces.Discrete(2)
        obs[f"training/{name}/belief/goal"] = spaces.Discrete(GOALS)
        action[f"action/{name}"] = spaces.Discrete(CHOICES)
    said = {"tokens": 1, "vocabulary": 8} if channel else {}
    config = Hyperparameters(size=size, batch_size=batch, batch_length=length, channel=said, weights=weights)
    agent = Belief(config, obs, action)
    rng = np.random.default_rng(0)
    shape = (batch, length + config.replay_context)
    rows: dict[str, torch.Tensor] = {}
    for key, space in {**obs, **action}.items():
        if key.endswith("/alive"):
            rows[key] = torch.ones(shape, dtype=torch.int64)
        elif key.endswith("/terminal"):
            rows[key] = torch.zeros(shape, dtype=torch.int64)
        elif isinstance(space, spaces.Discrete):
            rows[key] = torch.from_numpy(rng.integers(space.n, size=shape))
        else:
            rows[key] = torch.from_numpy(rng.normal(size=(*shape, *(space.shape or ()))).astype(np.float32))
    rows["reward"] = torch.zeros(shape)
    for flag in ("is_first", "is_last", "is_terminal"):
        rows[flag] = torch.zeros(shape, dtype=torch.bool)
    for key, field in agent.latent_fields.items():
        kind = torch.uint8 if field.dtype == np.uint8 else torch.float32
        rows[f"latent/{key}"] = torch.zeros((*shape, *field.shape), dtype=kind)
    return agent, rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1m")
    parser.add_argument("--batch", type=int, default=16, help="sequences of the one agent; four agents have a quarter")
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batch, length = arguments.batch, arguments.length
    contenders = {
        "one agent": build(1, batch, length, arguments.size),
        "four agents": build(4, batch // 4, length, arguments.size),
        "four agents that talk": build(4, batch // 4, length, arguments.size, channel=True),
        "four agents of separate weights": build(4, batch // 4, length, arguments.size, weights="separate"),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(arguments.repeats + 2):
        for name, (agent, rows) in contenders.items():
            began = time.process_time()
            agent.update(rows)
            if repeat >= 2:
                taken[name].append(time.process_time() - began)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratios = {name: medians[name] / medians["one agent"] for name in contenders}
    print(json.dumps({**vars(arguments), "median_cpu_seconds": medians, "ratio_to_one_agent": ratios}, indent=1))


if __name__ == "__main__":
    main()

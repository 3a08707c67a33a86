"""Count what an update launches on a GPU, its bytes and its arithmetic, without one: on PyTorch's meta device.

    python tests/benchmarks/launches.py [--obs image] [--json FILE]

Launches are those of the eager update, at least one an operation; captured, they are the nodes of two graphs. Bytes are
what operations read and write if nothing stays in a cache. Milliseconds are what these take at the rates given, each by
itself: whatever an update takes, it is more than the largest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.platform.bench.kinds import KINDS
from oneiros.platform.training.agents import row_fields
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "algorithms" / "fakes"))
from device import DEVICE, Watch, stand_in

SIZES = ("1m", "12m", "50m", "200m")
MICROSECONDS, BYTES_A_SECOND, FLOPS_A_SECOND = 2.0, 4.3e12, 700e12
"""A small kernel inside a graph, copying, and products of bfloat16 matrices: round figures for an H200."""


def count(size: str, obs: str, **overrides: Any) -> dict[str, Any]:
    """What one update of ``size`` is made of."""
    kind = KINDS[obs]
    spaces = flatten_observation_space(kind.observation_space), flatten_action_space(kind.action_space)
    config = Hyperparameters(size=size, precision="bfloat16", compile="off", **overrides)
    # Nothing on that device has values, so none are drawn.
    with stand_in(), mock.patch("oneiros.algorithms.nn.layers.truncated_normal_"):
        agent = DreamerV3(config, *spaces, device=DEVICE)
        shape = config.batch_size, config.batch_length + config.replay_context
        batch = {
            name: torch.empty(*shape, *field.shape, dtype=getattr(torch, str(field.dtype)), device=DEVICE)
            for name, field in row_fields(agent, *spaces).items()
        }
        with Watch() as watch:
            agent.backward(batch)
            before_step = watch.kernels
            agent.step({})
        with FlopCounterMode(display=False) as flops:
            agent.backward(batch)
    kinds: Counter[str] = Counter()
    for operation, number in flops.get_flop_counts()["Global"].items():
        kinds["convolutions" if "conv" in str(operation) else "products"] += number
    return {
        "size": size,
        "obs": obs,
        "parameters": agent.weights.flat.numel(),
        "launches": watch.kernels,
        "launches_of_the_optimiser": watch.kernels - before_step,
        "bytes": watch.moved,
        "flops": flops.get_total_flops(),
        "flops_by_kind": dict(kinds),
        "launching_ms": watch.kernels * MICROSECONDS / 1e3,
        "moving_ms": 1e3 * watch.moved / BYTES_A_SECOND,
        "computing_ms": 1e3 * flops.get_total_flops() / FLOPS_A_SECOND,
        "most_launched": dict(watch.launches.most_common(12)),
    }


def main() -> None:
    """Count at every size, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--obs", choices=sorted(KINDS), default="image")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    for size in SIZES:
        found.append(count(size, arguments.obs))
        line = found[-1]
        print(
            f"{size}: {line['launches']} launches ({line['launching_ms']:.1f} ms), {line['bytes'] / 1e9:.1f} GB "
            f"({line['moving_ms']:.1f} ms), {line['flops'] / 1e12:.2f} TFLOP ({line['computing_ms']:.1f} ms)",
            flush=True,
        )
    if arguments.json:
        rates = {"launch_us": MICROSECONDS, "bytes_per_s": BYTES_A_SECOND, "flops_per_s": FLOPS_A_SECOND}
        command = f"python tests/benchmarks/launches.py --obs {arguments.obs}"
        text = json.dumps({"command": command, "rates": rates, "torch": torch.__version__, "sizes": found}, indent=2)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""How long replay takes: inserting, sampling and writing back, in memory and mapped from disk; prints a table.

Run with ``python tests/benchmarks/bench_replay.py [--rows N] [--directory DIR]``. One core, medians of repeated calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from oneiros.algorithms.contract import Field
from oneiros.platform.replay import Replay


def fields(kind: str, deter: int) -> dict[str, Field]:
    """Rows of ``oneiros bench``: 24 numbers and 6 continuous actions, or 64x64x3 images and 17 discrete actions."""
    image = kind == "image"
    return {
        "obs": Field((64, 64, 3) if image else (24,), np.dtype(np.uint8 if image else np.float32)),
        "action": Field(() if image else (6,), np.dtype(np.int32 if image else np.float32)),
        "reward": Field((), np.dtype(np.float32)),
        "is_first": Field((), np.dtype(bool)),
        "is_last": Field((), np.dtype(bool)),
        "is_terminal": Field((), np.dtype(bool)),
        "latent/deter": Field((deter,), np.dtype(np.float16)),
        "latent/stoch": Field((32,), np.dtype(np.uint8)),
    }


def experience(rows: dict[str, Field], streams: int, steps: int) -> SimpleNamespace:
    """Random rows of endless episodes."""
    generator = np.random.default_rng(0)
    values = {
        name: generator.integers(0, 30, (streams, steps, *field.shape)).astype(field.dtype)
        for name, field in rows.items()
    }
    for flag in ("is_first", "is_last", "is_terminal"):
        values[flag][:] = False
    return SimpleNamespace(rows=values, streams=np.arange(streams))


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median duration of ``call``."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def measure(kind: str, deter: int, stride: int, rows: int, directory: Path | None) -> dict[str, float | str]:
    """One line of the table."""
    layout = fields(kind, deter)
    replay = Replay(layout, capacity=rows, directory=directory, online=False, latent_stride=stride)
    chunk = experience(layout, 8, 32)
    began, added = time.perf_counter(), 0
    while added < rows * 1.2:
        added += replay.add(chunk)
    inserting = time.perf_counter() - began
    out = replay.sample()
    ids = out["row_id"][:, 1:]
    latents = {
        name: np.zeros((*ids.shape, *layout[name].shape), layout[name].dtype)
        for name in ("latent/deter", "latent/stoch")
    }
    stats = replay.stats()
    result: dict[str, float | str] = {
        "kind": kind,
        "deter": deter,
        "latent_stride": stride,
        "where": "disk" if directory else "memory",
        "rows": stats["rows"],
        "insert_rows_per_s": added / inserting,
        "sample_ms": 1e3 * seconds(lambda: replay.sample(out=out), 100),
        "sample_fresh_arrays_ms": 1e3 * seconds(replay.sample, 100),
        "write_back_ms": 1e3 * seconds(lambda: replay.write_back(replay.sample()["row_id"][:, 1:], latents), 30),
        "row_bytes": stats["row_bytes"],
        "row_bytes_per_obs_byte": stats["row_bytes"] / stats["row_bytes_obs"],
    }
    replay.close()
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--directory", type=Path, default=None, help="where to map chunks (default: a temporary one)")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        for number, (kind, deter, stride) in enumerate(
            [("state", 512, 1), ("state", 2048, 1), ("image", 2048, 1), ("image", 8192, 8)]
        ):
            for where in (None, Path(folder) / str(number)):
                results.append(measure(kind, deter, stride, arguments.rows, where))
                print(
                    " ".join(
                        f"{key}={value:.5g}" if isinstance(value, float) else f"{key}={value}"
                        for key, value in results[-1].items()
                    ),
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

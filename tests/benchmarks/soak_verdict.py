"""Whether what a training holds grows."""

from __future__ import annotations

import statistics
from typing import Any

WARM_UP_S = 300.0
"""Until the replay is full and everything has been loaded once."""
LIMITS = {
    "memory_mb": 0.05,
    "driver_mb": 0.05,
    "shm_mb": 0.10,
    "run_mb": 0.10,
    "processes": 0.05,
    "actors": 0.0,
    "threads": 0.05,
    "files": 0.05,
    "ports": 0.05,
    "driver_files": 0.05,
    "driver_threads": 0.05,
}
"""By how much of itself the median of the last third may lie above that of the first third."""


def verdict(samples: list[dict[str, Any]], life: int) -> dict[str, Any]:
    """Compare the thirds of what was sampled in that life of the driver once it was warm."""
    warm = [sample for sample in samples if sample["life"] == life and sample["life_s"] > WARM_UP_S]
    third = len(warm) // 3
    if not third:
        return {"flat": None, "why": f"{len(warm)} samples after {WARM_UP_S:.0f} s are too few"}
    figures = {}
    for name, limit in LIMITS.items():
        first = statistics.median(sample[name] for sample in warm[:third])
        last = statistics.median(sample[name] for sample in warm[-third:])
        grown = (last - first) / first if first else float(last > 0)
        figures[name] = {"first": first, "last": last, "grown": round(grown, 4), "flat": grown <= limit}
    return {"flat": all(figure["flat"] for figure in figures.values()), "samples": len(warm), **figures}

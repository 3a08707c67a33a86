"""Whether a run is long enough for compiling to pay."""

from __future__ import annotations

from typing import Any

from oneiros.platform.config import RunConfig
from oneiros.platform.training.agents import hyperparameters

EARNED_BACK = 4_000
"""Updates from which compiling pays: it costs about a minute, and saves at least 0.03 s an update at any size."""


def settle_compile(run: RunConfig) -> dict[str, Any]:
    """Return the run's hyperparameters, with ``compile: auto`` turned off where the run is too short to gain by it."""
    if run.hyper.get("compile") != "auto":
        return dict(run.hyper)
    config = hyperparameters(run.agent, run.hyper)
    if run.planned_updates(config.batch_size * config.batch_length) >= EARNED_BACK:
        return dict(run.hyper)
    return {**run.hyper, "compile": "off"}

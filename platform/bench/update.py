"""How long a complete update takes: sample, stage, learn, write back, read metrics, through the core as in training."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import torch
from oneiros.platform.bench.durations import Durations
from oneiros.platform.bench.learner import Learner, LearnerSettings
from oneiros.platform.bench.machine import OtherLoad, describe, peak_memory
from oneiros.platform.bench.operations import count_flops, count_launches, matmul_ceiling, write_trace


def measure_update(
    settings: LearnerSettings,
    updates: int,
    *,
    began: float | None = None,
    trace: Path | None = None,
    operations: bool = True,
) -> dict[str, Any]:
    """Seconds a complete update, start-up apart, and what bounds it.

    ``began`` is the moment (``time.perf_counter``) from which start-up counts, by default now; it ends with the first
    update for which nothing had to be compiled or captured. ``trace`` is where a Chrome trace of three further updates
    goes. ``operations`` counts the arithmetic, measures what the device can do, and on CUDA counts launches.

    Raises ``ConfigError``.
    """
    began = time.perf_counter() if began is None else began
    learner = Learner(settings)
    device, dtype = learner.device, learner.agent.dtype
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        settled_after = learner.settle()
        startup = time.perf_counter() - began
        # The first one after the pause reads no metrics of one before it.
        learner.update()
        durations = Durations()
        with OtherLoad() as others:
            for _ in range(updates):
                durations.time(learner.update)
        learner.core.flush()
        hyper = learner.hyper
        result: dict[str, Any] = {
            **durations.summary(),
            "updates": updates,
            "startup_s": startup,
            "startup_updates": settled_after,
            "parameters": learner.parameters,
            "peak_memory_bytes": peak_memory(device),
            "size": settings.size,
            "obs": settings.obs,
            "batch_size": hyper.batch_size,
            "batch_length": hyper.batch_length,
            "imagination_length": hyper.imagination_length,
            "overrides": dict(settings.overrides),
            "precision": str(dtype).removeprefix("torch."),
            "scan_precision": str(learner.agent.scan_dtype).removeprefix("torch."),
            "compile": learner.compiles,
            "cuda_graph": learner.captures,
            "other_load": others.share,
            **describe(device),
        }
        if operations and device.type == "cuda":
            result |= count_launches(learner)
        if trace is not None:
            result["operations"] = write_trace(learner, str(trace))
            result["trace"] = str(trace)
    finally:
        learner.close()
    del learner
    gc.collect()
    if operations:
        result["flops"] = count_flops(settings)["total"]
        result["flops_per_s"] = result["flops"] / result["median_s"]
        result["ceiling_flops_per_s"] = matmul_ceiling(device, dtype)
        result["share_of_ceiling"] = result["flops_per_s"] / result["ceiling_flops_per_s"]
    return result

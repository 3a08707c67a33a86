"""How much arithmetic an update is, how much of it the device could do, and how many launches it takes."""

from __future__ import annotations

import time
from typing import Any

import torch
from oneiros.platform.bench.learner import Learner, LearnerSettings
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

LAUNCHES = (
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernelEx",
    "cudaLaunchCooperativeKernel",
)
CEILING_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}
CEILING_SECONDS = 0.5


def count_flops(settings: LearnerSettings) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions of one eager update, by kind and in ``total``."""
    learner = Learner(settings, eager=True)
    try:
        learner.update()
        with FlopCounterMode(display=False) as counter:
            learner.update()
        learner.core.flush()
        kinds = {str(op).removeprefix("aten."): flops for op, flops in counter.get_flop_counts()["Global"].items()}
        return {**kinds, "total": counter.get_total_flops()}
    finally:
        learner.close()


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The most floating-point operations a second that a product of two square matrices reaches here."""
    best = 0.0
    for size in CEILING_SIZES[device.type]:
        a = torch.randn(size, size, device=device).to(dtype)
        out = torch.empty_like(a)
        for _ in range(2):
            torch.mm(a, a, out=out)
        _wait(device)
        until = time.perf_counter() + CEILING_SECONDS / len(CEILING_SIZES[device.type])
        while time.perf_counter() < until:
            began = time.perf_counter()
            for _ in range(4):
                torch.mm(a, a, out=out)
            _wait(device)
            best = max(best, 4 * 2 * size**3 / (time.perf_counter() - began))
    return best


def count_launches(learner: Learner) -> dict[str, int]:
    """What one steady update sends to a CUDA device: launches by the host, and kernels that ran.

    ``graph_launches`` replay a whole captured graph; ``copies`` are those of memory that the host asked for.
    """
    learner.update()
    learner.core.flush()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        learner.update()
        learner.core.flush()
        torch.cuda.synchronize(learner.device)
    return launches_among([(event.name, str(event.device_type)) for event in profiled.events() or ()])


def launches_among(events: list[tuple[str, str]]) -> dict[str, int]:
    """Counts of ``(name, device type)`` of a profile's events."""
    host = [name for name, device in events if device.endswith("CPU")]
    device = [name for name, device in events if device.endswith("CUDA")]
    return {
        "launches": sum(name in LAUNCHES for name in host),
        "graph_launches": sum(name == "cudaGraphLaunch" for name in host),
        "copies": sum(name.startswith(("cudaMemcpy", "cudaMemset")) for name in host),
        "kernels": sum(not name.startswith(("Memcpy", "Memset")) for name in device),
    }


def write_trace(learner: Learner, path: str, updates: int = 3) -> list[dict[str, Any]]:
    """Write a Chrome trace of some steady updates to ``path``; returns what took longest, by operation."""
    activities = [ProfilerActivity.CPU]
    if learner.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, record_shapes=True) as profiled:
        for _ in range(updates):
            learner.update()
        learner.core.flush()
        _wait(learner.device)
    profiled.export_chrome_trace(path)
    attribute = "self_device_time_total" if learner.device.type == "cuda" else "self_cpu_time_total"
    averages = sorted(profiled.key_averages(), key=lambda item: -float(getattr(item, attribute)))
    return [
        {
            "operation": item.key,
            "ms": float(getattr(item, attribute)) / 1e3 / updates,
            "calls": item.count / updates,
        }
        for item in averages[:15]
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

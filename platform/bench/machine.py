"""The machine under a measurement: what it is, how busy others keep it, and what this process has used of it."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from oneiros.platform.config import ConfigError
from oneiros.platform.tracking.provenance import processor_name

if TYPE_CHECKING:
    import torch

ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"


def process_began() -> float:
    """When this process began, on the clock of ``time.perf_counter``."""
    return time.perf_counter() - (time.time() - psutil.Process().create_time())


def turn_amx_off() -> None:
    """Keep matrix products off the AMX tiles; must come before the first product of this process."""
    os.environ[ISA_VARIABLE] = "AVX512_CORE_BF16"


def set_threads(threads: int | None) -> int:
    """Let PyTorch use ``threads`` threads, or what it chooses; returns how many it is."""
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads is {threads}; it must be at least 1.")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def describe(device: torch.device) -> dict[str, Any]:
    """Names and versions that a measurement means nothing without."""
    import torch
    from oneiros.algorithms.nn.precision import cpu_flags

    flags = cpu_flags()
    amx = "amx_bf16" in flags and "AMX" in os.environ.get(ISA_VARIABLE, "AMX")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "device_type": device.type,
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "amx": amx,
        "avx512_bf16": "avx512_bf16" in flags,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device that tensors took at most, or, on a CPU, of memory that this process took at most."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class OtherLoad:
    """The share of all cores that other processes used while this was entered, 0 to 1; None where nobody counts."""

    def __init__(self) -> None:
        self.share: float | None = None

    def __enter__(self) -> OtherLoad:
        self._before = _jiffies()
        self._own = _own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        after = _jiffies()
        if self._before is None or after is None:
            return
        busy, total = after[0] - self._before[0], after[1] - self._before[1]
        own = (_own_seconds() - self._own) * os.sysconf("SC_CLK_TCK")
        self.share = min(1.0, max(0.0, (busy - own) / total)) if total > 0 else None


def _jiffies() -> tuple[int, int] | None:
    """Busy and all clock ticks of all cores since the machine started; what a hypervisor took away is busy."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    ticks = [int(word) for word in words[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _own_seconds() -> float:
    """Seconds that this process and those that it started have computed."""
    process = psutil.Process()
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
    return float(total)

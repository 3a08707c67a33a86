"""What the hardware can do well: the compute dtype, and whether to compile."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import torch

BF16_UNITS = ("amx_bf16", "avx512_bf16")
"""Flags of processors whose bfloat16 matrix products are faster than their float32 ones."""


@functools.lru_cache
def cpu_flags() -> frozenset[str]:
    """The processor's feature flags, as the kernel names them; empty where the kernel does not tell."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return frozenset()
    for line in path.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def choose_precision(wish: str, device: torch.device) -> torch.dtype:
    """The compute dtype for ``wish`` of ``auto``, ``float32`` or ``bfloat16``."""
    if wish != "auto":
        return torch.bfloat16 if wish == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if any(flag in cpu_flags() for flag in BF16_UNITS) else torch.float32


def has_compiler() -> bool:
    """Whether a C++ compiler is there for ``torch.compile``."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def choose_compile(wish: str, device: torch.device) -> bool:
    """Whether to compile, for ``wish`` of ``auto``, ``on`` or ``off``; raises ``ValueError`` if it cannot be had."""
    if wish == "on" and device.type == "cpu" and not has_compiler():
        raise ValueError(
            "compile=on needs a C++ compiler (g++ or clang++) on the PATH; install one or set compile=off."
        )
    return wish == "on" or (wish == "auto" and (device.type == "cuda" or has_compiler()))

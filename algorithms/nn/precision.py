"""What the hardware can do well: the compute dtype, and whether to compile."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

BF16_UNITS = ("amx_bf16", "avx512_bf16")
"""Flags of processors whose bfloat16 matrix products are faster than their float32 ones."""
GPU_WITH_BF16, GPU_WITH_TRITON = (8, 0), (7, 0)
"""CUDA's compute capabilities from which on bfloat16 has units, and Triton compiles."""


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
        return torch.float32 if _older(device, GPU_WITH_BF16) else torch.bfloat16
    return torch.bfloat16 if any(flag in cpu_flags() for flag in BF16_UNITS) else torch.float32


def has_compiler() -> bool:
    """Whether a C++ compiler is there for ``torch.compile``."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def choose_compile(wish: str, device: torch.device) -> bool:
    """Whether to compile, for ``wish`` of ``auto``, ``on`` or ``off``; raises ``ValueError`` if it cannot be had."""
    if wish == "off":
        return False
    lacking = lacking_for_triton(device) if device.type == "cuda" else None
    if device.type == "cpu" and not has_compiler():
        lacking = "a C++ compiler (g++ or clang++) on the PATH"
    if wish == "on" and lacking:
        raise ValueError(f"compile=on needs {lacking}; install one or set compile=off.")
    return lacking is None


def lacking_for_triton(device: torch.device) -> str | None:
    """What ``torch.compile`` lacks here to compile for CUDA, or None: it builds a launcher in C for every kernel."""
    if importlib.util.find_spec("triton") is None:
        return "Triton, which PyTorch's CUDA builds for Linux bring along"
    if not os.environ.get("CC") and not any(shutil.which(name) for name in ("gcc", "clang", "cc")):
        return "a C compiler (gcc or clang) on the PATH"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's headers (Debian: apt-get install python3-dev)"
    return "a GPU of compute capability 7.0 or above" if _older(device, GPU_WITH_TRITON) else None


def _older(device: torch.device, capability: tuple[int, int]) -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability(device) < capability

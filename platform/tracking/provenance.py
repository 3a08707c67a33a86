"""Where a run came from: the code, the packages, the machine and the command."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("oneiros", "torch", "ray", "mlflow", "gymnasium", "numpy", "safetensors", "pydantic")


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """What somebody needs to run the same again: JSON only."""
    return {
        "created": time.time(),
        "command": shlex.join(sys.argv if command is None else command),
        "directory": os.getcwd(),
        "git": {name: state for name, path in _sources().items() if (state := git_state(path)) is not None},
        "versions": versions(PACKAGES),
        "machine": machine(),
    }


def git_state(path: Path) -> dict[str, Any] | None:
    """The commit that ``path`` is checked out at and whether files differ from it; None outside a repository."""
    commit = _git(path, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(path, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changes)}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The installed ones among ``packages``, with ``python``."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Host, processor, cores that this process may use, memory in bytes, and GPUs if torch is already loaded."""
    torch = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
    }


def processor_name() -> str:
    """The processor's model, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _sources() -> dict[str, Path]:
    """The repositories whose code may be running: the package's own, and the one of the working directory."""
    return {"oneiros": Path(__file__).resolve().parent, "directory": Path.cwd()}


def _git(path: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(path), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

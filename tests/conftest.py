"""What every test runs under: bounded threads, no telemetry, reproducible property tests, honest skips."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import settings

# Before torch, MuJoCo, Ray or MLflow are imported, here or in a process that a test starts.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("MUJOCO_GL", "egl")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A property that fails must fail in the next run too; and how long an example takes is the machine's business.
settings.register_profile("oneiros", derandomize=True, deadline=None)
settings.load_profile("oneiros")


def _netns_refused() -> str | None:
    """Why network namespaces cannot be made here, or None."""
    if shutil.which("ip") is None:
        return "no `ip` command (Debian: apt-get install iproute2)"
    name = f"oneiros-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"`ip netns add` is refused: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


def _no_gpu() -> str | None:
    """Why tests on a CUDA device cannot run here, or None."""
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; nothing else is ever skipped for the machine's sake."""
    for item in items:
        folder = item.path.parent.name
        # A file's tests share what they start; Luanti's look for what others of them may have left on the machine, and
        # two Ray clusters that learn at once starve each other.
        whole = folder in ("luanti", "engine")
        item.add_marker(pytest.mark.xdist_group(folder if whole else f"{folder}/{item.path.stem}"))
    for marker, probe in (("gpu", _no_gpu), ("netns", _netns_refused)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = probe() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))

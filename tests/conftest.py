"""What every test runs under: bounded threads, no telemetry, reproducible property tests, honest skips."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading

import psutil
import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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


TOGETHER = {
    # Two Ray clusters that learn at once starve each other.
    "ray": (
        "algorithms/belief/test_seat.py",
        "cluster/",
        "deploy/test_slurm.py",
        "platform/bench/test_comparison.py",
        "platform/cli/test_beginnings.py",
        "platform/cli/test_inference.py",
        "platform/cli/test_killed.py",
        "platform/cli/test_real_runs.py",
        "platform/engine/",
        "platform/jobs/",
        "platform/serving/test_serve_command.py",
    ),
    # These look for what others of them may have left on the machine.
    "luanti": ("envs/luanti/",),
}
"""Tests that only one worker at a time may run, by the beginnings of their places; of others, a file stays in one."""


class Together(LoadScopeScheduling):
    """Gives a worker whole files of tests, which share what they start, and keeps ``TOGETHER`` together."""

    def _split_scope(self, nodeid: str) -> str:
        place = nodeid.split("::")[0].removeprefix("tests/")
        return next((group for group, places in TOGETHER.items() if place.startswith(places)), place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    """See ``Together``. (xdist's own groups by marker do nothing, without a word, under pytest 9.2.)"""
    return Together(config, log)


class Overseer:
    """Of a run in several workers: names each failure at once, and ends workers that outlive the session's time.

    Should the run be cut short, what failed is in its output all the same; and a worker that hangs where no limit of a
    test reaches it, in the closing of a fixture, say, dies of a signal that shows where; then the summary is written.
    """

    def __init__(self, config: pytest.Config, seconds: float) -> None:
        self._config = config
        self._clock = threading.Timer(seconds, self._end_workers)
        self._clock.daemon = True

    def pytest_sessionstart(self) -> None:
        self._clock.start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            terminal = self._config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f" {report.nodeid} failed ({report.when})")

    def pytest_sessionfinish(self) -> None:
        self._clock.cancel()

    def _end_workers(self) -> None:
        for worker in psutil.Process().children():
            worker.send_signal(signal.SIGABRT)


def pytest_configure(config: pytest.Config) -> None:
    """See ``Overseer``."""
    if config.getoption("numprocesses", None):
        config.pluginmanager.register(Overseer(config, float(config.getini("session_timeout")) + 300))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; nothing else is ever skipped for the machine's sake."""
    for marker, probe in (("gpu", _no_gpu), ("netns", _netns_refused)):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = probe() if marked else None
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))

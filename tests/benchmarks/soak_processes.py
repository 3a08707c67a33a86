"""The processes of a training, seen from outside: who they are, and what they hold."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

ROLES = {
    "WorldModelEnvRunner": "runner",
    "_WrappedExecutable": "learner",
    "InferenceServer": "inference",
    "log_monitor": "logs",
    "raylet": "ray",
    "gcs_server": "ray",
}
"""A word in a process's title, and what it makes the process; a learner's is that of Ray Train's worker group.

Ray's log monitor keeps two files of every dead worker open until they are 200, and then closes them all.
"""
ROLE_NAMES = ("driver", "runner", "learner", "inference", "logs", "ray", "other")


class Processes:
    """The driver and all that it has started; also what has lost its parent since."""

    def __init__(self) -> None:
        self.known: list[psutil.Process] = []

    def look(self, driver: int) -> None:
        """Find new ones, and forget those that are gone."""
        found = {process.pid: process for process in self.known if lives(process)}
        try:
            roots = [psutil.Process(driver), *found.values()]
        except psutil.NoSuchProcess:
            roots = list(found.values())
        for root in roots:
            try:
                for process in [root, *root.children(recursive=True)]:
                    found.setdefault(process.pid, process)
            except psutil.NoSuchProcess:
                continue
        self.known = list(found.values())

    def forget(self) -> None:
        """Begin anew with another driver."""
        self.known = []

    def of(self, role: str) -> list[psutil.Process]:
        """Those of one role, in no particular order."""
        return [process for process in self.known if lives(process) and _role(process) == role]

    def sample(self) -> dict[str, Any]:
        """Proportional memory by role in MB, and how many processes, actors, threads, open files and open ports.

        Of open files those of the log monitor are counted apart.
        """
        memory = dict.fromkeys(ROLE_NAMES, 0.0)
        counts = {"processes": 0, "actors": 0, "threads": 0, "files": 0, "ports": 0}
        held = dict.fromkeys(memory, 0)
        threads_of_driver = 0
        for index, process in enumerate(self.known):
            try:
                role = "driver" if index == 0 else _role(process)
                memory[role] += process.memory_full_info().pss / 2**20
                files, threads = process.num_fds(), process.num_threads()
                counts["processes"] += 1
                counts["actors"] += role in ("runner", "learner")
                counts["threads"] += threads
                counts["files"] += files if role != "logs" else 0
                held[role] += files
                counts["ports"] += sum(link.status == psutil.CONN_LISTEN for link in process.net_connections("tcp"))
                if role == "driver":
                    threads_of_driver = threads
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return {
            **{f"{role}_mb": round(size, 1) for role, size in memory.items()},
            "memory_mb": round(sum(memory.values()), 1),
            **counts,
            **{f"{role}_files": files for role, files in held.items()},
            "driver_threads": threads_of_driver,
        }

    def held(self) -> dict[str, int]:
        """How many open files of each kind the processes of each role hold."""
        kinds: Counter[str] = Counter()
        for index, process in enumerate(self.known):
            role = "driver" if index == 0 else _role(process)
            for file in Path(f"/proc/{process.pid}/fd").glob("*"):
                # A process or a file may end while one looks.
                with contextlib.suppress(OSError):
                    kinds[f"{role}: {_kind(str(file.readlink()))}"] += 1
        return dict(sorted(kinds.items()))

    def seconds(self) -> dict[str, float]:
        """Processor seconds by role, so far."""
        used = dict.fromkeys(ROLE_NAMES, 0.0)
        for index, process in enumerate(self.known):
            try:
                times = process.cpu_times()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            used["driver" if index == 0 else _role(process)] += times.user + times.system
        return used


def _role(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "other"
    return next((role for word, role in ROLES.items() if word in title), "other")


def _kind(target: str) -> str:
    """A file's name without what tells one of its kind from another."""
    return re.sub(r"[0-9a-f]{6,}|[0-9]+", "#", target.rpartition("/")[2] if target.startswith("/") else target)


def lives(process: psutil.Process) -> bool:
    """Whether it runs, and not only waits for its parent to look after it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

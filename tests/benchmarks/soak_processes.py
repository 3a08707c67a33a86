"""The processes of a training, seen from outside: who they are, and what they hold."""

from __future__ import annotations

from typing import Any

import psutil

ROLES = {"WorldModelEnvRunner": "runner", "_WrappedExecutable": "learner", "raylet": "ray", "gcs_server": "ray"}
"""A word in a process's title, and what it makes the process; a learner's is that of Ray Train's worker group."""


class Processes:
    """The driver and all that it has started; also what has lost its parent since."""

    def __init__(self) -> None:
        self.known: list[psutil.Process] = []

    def look(self, driver: int) -> None:
        """Find new ones, and forget those that are gone."""
        found = {process.pid: process for process in self.known if _lives(process)}
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
        return [process for process in self.known if _lives(process) and _role(process) == role]

    def sample(self) -> dict[str, Any]:
        """Proportional memory by role in MB, and how many processes, actors, threads, open files and open ports."""
        memory = {"driver": 0.0, "runner": 0.0, "learner": 0.0, "ray": 0.0, "other": 0.0}
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
                counts["files"] += files
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


def _role(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "other"
    return next((role for word, role in ROLES.items() if word in title), "other")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

"""Outlives whoever started a game, and leaves nothing of it: ``python janitor.py FILE_DESCRIPTOR MARK FOLDER``.

When the other end of the descriptor is closed, which the death of its owner does too, every process whose environment
has the mark is killed, wherever in the tree it went, and the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time

import psutil

VARIABLE = "ONEIROS_MINERL_MARK"
PATIENCE = 20.0


def marked(mark: str) -> list[psutil.Process]:
    """The processes that were started with this mark, by whomever."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(VARIABLE) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sweep(mark: str) -> None:
    """Kill until none is left: one that is dying may have started another."""
    deadline = time.monotonic() + PATIENCE
    while (found := marked(mark)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)


def main() -> None:
    """Wait for the owner to go."""
    descriptor, mark, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    while os.read(descriptor, 1):
        pass
    sweep(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

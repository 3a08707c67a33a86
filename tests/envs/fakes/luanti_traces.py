"""What games and X servers leave on a machine."""

from __future__ import annotations

import re
import time
from pathlib import Path


def processes() -> set[int]:
    """Every game and X server that an environment here has started."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and b"ONEIROS_LUANTI_OWNER=" in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def leftovers() -> set[str]:
    """Folders, sockets and locks of games and X servers."""
    scratch = {str(path) for base in ("/dev/shm", "/tmp") for path in Path(base).glob("oneiros-luanti-*")}
    x11 = {str(path) for path in Path("/tmp").glob(".X*-lock")} | {
        str(path) for path in Path("/tmp").glob(".X11-unix/X*")
    }
    return scratch | {path for path in x11 if re.search(r"X\d+", path)}


def settles(before: tuple[set[int], set[str]], seconds: float = 10.0) -> bool:
    """Whether all is as it was ``before``, now or within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not processes() - before[0] and not leftovers() - before[1]:
            return True
        time.sleep(0.1)
    return False

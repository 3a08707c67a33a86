"""An append-only file of lines that one thread writes and another, perhaps in a later process, reads from an offset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class LineFile:
    """Lines in a file. A line that a crash cut short is closed before the next one, so it spoils no other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checked = False

    def append(self, line: str) -> None:
        """Write ``line``, which holds no line break, in one piece; raises ``OSError``."""
        data = line.encode() + b"\n"
        with self.path.open("ab") as file:
            if not self._checked:
                self._checked = True
                if file.tell() and not self._ends_with_line_break():
                    data = b"\n" + data
            file.write(data)

    def read(self, offset: int, most: int) -> Iterator[tuple[str, int]]:
        """At most ``most`` complete lines from byte ``offset`` on, each with the offset that follows it."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(offset)
            for _ in range(most):
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield line.decode(errors="replace").rstrip("\n"), offset

    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def _ends_with_line_break(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


def parse(line: str) -> dict[str, Any] | None:
    """The object that a line holds in JSON; None for one that a crash cut short."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None

"""What commands print and write."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Elsewhere than on a terminal nobody wraps lines at 80 letters.
WIDTH = None if sys.stdout.isatty() else 200

console = Console(highlight=False, soft_wrap=True, width=WIDTH)
"""For what a command is asked for."""
notes = Console(stderr=True, highlight=False, soft_wrap=True)
"""For what is said along the way, so that standard output stays usable by other programs."""


def claim_json(path: Path | None, option: str = "--json") -> None:
    """Raise ``ConfigError`` now if the file of ``option`` could not be written after hours of work."""
    if path is None:
        return
    from oneiros.platform.config import ConfigError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be written: {error.strerror or error}.") from error


def write_json(path: Path | None, figures: Any) -> None:
    """Write ``figures`` to the ``--json`` file, if one was asked for; raises ``ConfigError`` where it cannot lie."""
    claim_json(path)
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A plain table; the last column takes what room is left."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        made.add_column(heading, overflow="fold" if index == len(headings) - 1 else "ellipsis", no_wrap=index == 0)
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def duration(seconds: float) -> str:
    """``75`` as ``1:15``, ``3675`` as ``1:01:15``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

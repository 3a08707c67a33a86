"""A run's figures as JSON lines: the record that is always written, and from which MLflow is fed."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneiros.platform.tracking.line_file import LineFile

log = logging.getLogger(__name__)


SEAM = frozenset({"env_steps", "time"})
"""All that a record holds where a run went on from a checkpoint: what follows takes the place of what was beyond it."""


class MetricsFile:
    """Appends one line ``{"env_steps": n, "time": seconds, "<metric>": x, ...}`` a record.

    A disk that is full costs records, never the run: ``lost`` counts them, and the first is logged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._lines = LineFile(path)

    def append(self, metrics: Mapping[str, float], env_steps: int, when: float | None = None) -> None:
        """Write ``metrics`` as of ``env_steps``; numbers that JSON has no word for become null."""
        row: dict[str, Any] = {"env_steps": env_steps, "time": round(time.time() if when is None else when, 3)}
        row.update((name, value if math.isfinite(value) else None) for name, value in metrics.items())
        try:
            self._lines.append(json.dumps(row))
        except OSError as error:
            self.lost += 1
            if self.lost == 1:
                log.warning("metrics cannot be written to %s (%s); training goes on without them", self.path, error)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """A run's records in the order of env steps.

    A run that went on from a checkpoint repeats steps: what it rolled back is left out. Raises
    ``FileNotFoundError``.
    """
    rows: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue  # the line that was being written when the machine stopped
        while rows and rows[-1]["env_steps"] > row["env_steps"]:
            rows.pop()
        if row.keys() - SEAM:
            rows.append(row)
    return rows

"""What MLflow is to be told of ``metrics.jsonl``: every figure once a step, also by a run that was killed."""

from __future__ import annotations

import sys
from typing import Any

from oneiros.platform.tracking.line_file import LineFile, parse
from oneiros.platform.tracking.metrics_file import SEAM

Row = dict[str, Any]


class Telling:
    """Hands out rows in order, without the figures that were handed out for the same steps before.

    A run that goes on from a checkpoint takes the steps beyond it again, and MLflow cannot forget what it was told of
    them. Of each figure, the steps that it had reached by then are left out: MLflow keeps what it was told first,
    ``metrics.jsonl`` what came of it in the end. In a run that repeats exactly both are the same.
    """

    def __init__(self, lines: LineFile, offset: int) -> None:
        """Begin at byte ``offset``: what stands before it was told."""
        self.offset = 0
        """Where the next batch begins."""
        self.retaken: list[str] = []
        """Steps that were taken again, as ``first..last``."""
        self._lines = lines
        self._reached: dict[str, int] = {}
        self._reached_before: dict[str, int] = {}
        self._step = 0
        self._batch: tuple[list[Row], int] | None = None
        for text, end in lines.read(0, sys.maxsize):
            if end > offset:
                break
            self._untold(text)
            self.offset = end

    def batch(self, most: int) -> tuple[list[Row], int]:
        """Return what at most ``most`` lines say, and the offset behind them; the same until it ``was_told``."""
        if self._batch is None:
            rows, offset = [], self.offset
            for text, end in self._lines.read(self.offset, most):
                offset = end
                if (row := self._untold(text)) is not None:
                    rows.append(row)
            self._batch = rows, offset
        return self._batch

    def was_told(self) -> None:
        """Go on behind the batch."""
        assert self._batch is not None
        self.offset, self._batch = self._batch[1], None

    def _untold(self, text: str) -> Row | None:
        """What is new in one line, if anything is."""
        row = parse(text)
        if row is None:
            return None
        step = int(row["env_steps"])
        if not row.keys() - SEAM or step < self._step:
            self._go_back(step)
        self._step = step
        new = {name: value for name, value in row.items() if name in SEAM or step > self._reached_before.get(name, -1)}
        for name in new.keys() - SEAM:
            self._reached[name] = step
        return new if new.keys() - SEAM else None

    def _go_back(self, step: int) -> None:
        self._reached_before = dict(self._reached)
        farthest = max(self._reached.values(), default=step)
        if farthest > step:
            self.retaken.append(f"{step + 1}..{farthest}")

"""How far a training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from oneiros.platform.cli.output import duration
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

SECONDS_BETWEEN_LINES = 10.0
WINDOW = 30.0
"""Seconds over which the speed is measured that the time left is estimated from."""


class Display(Protocol):
    """Shows how far a training is."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop showing."""

    def update(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Show ``env_steps`` and what is known of episode return, updates a second and train ratio."""


def display(console: Console, env_steps: int) -> Display:
    """The display that suits ``console``, for a training of ``env_steps`` in all."""
    return Bar(console, env_steps) if console.is_terminal else Lines(console, env_steps)


class TimeLeft:
    """Estimates the time left from the speed of the last half minute: a training slows when learning begins."""

    def __init__(self, env_steps: int) -> None:
        self._total = env_steps
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, env_steps: int, now: float | None = None) -> float | None:
        """Seconds left, or None while nothing can be said."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, env_steps))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        (since, first), (_, last) = self._seen[0], self._seen[-1]
        if last <= first or now <= since:
            return None
        return max(0, self._total - last) * (now - since) / (last - first)


def figures(metrics: Mapping[str, float]) -> str:
    """The figures that a user watches, as far as they are known."""
    shown = [
        ("return", "return {:.1f}"),
        ("updates_per_s", "{:.1f} updates/s"),
        ("train_ratio", "train ratio {:.0f}"),
    ]
    return "  ".join(text.format(metrics[name]) for name, text in shown if name in metrics)


class Bar:
    """A progress bar."""

    def __init__(self, console: Console, env_steps: int) -> None:
        self._left = TimeLeft(env_steps)
        self._known: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            expand=True,
        )
        self._task: TaskID = self._progress.add_task("train", total=env_steps, figures="", left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """See ``Display``."""
        self._known.update(metrics)
        left = self._left.update(env_steps)
        self._progress.update(
            self._task,
            completed=env_steps,
            figures=figures(self._known),
            left="" if left is None else f"{duration(left)} left",
        )


class Lines:
    """One line every ten seconds."""

    def __init__(self, console: Console, env_steps: int) -> None:
        self._console = console
        self._total = env_steps
        self._left = TimeLeft(env_steps)
        self._known: dict[str, float] = {}
        self._printed = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def update(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """See ``Display``."""
        self._known.update(metrics)
        left = self._left.update(env_steps)
        now = time.monotonic()
        if now - self._printed < SECONDS_BETWEEN_LINES and env_steps < self._total:
            return
        self._printed = now
        parts = [f"{env_steps:,}/{self._total:,} steps", figures(self._known)]
        if left is not None:
            parts.append(f"{duration(left)} left")
        self._console.print("  ".join(part for part in parts if part))

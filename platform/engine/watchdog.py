"""Ends a process in which nothing moves any more; Ray starts another."""

from __future__ import annotations

import faulthandler
import time
from types import TracebackType
from typing import Self

STANDARD_ERROR = 2
LOOKS = 10
"""How often, within the time, a sign of life may set the clock back: doing so at each would cost more than a step."""


class Watchdog:
    """While it is entered, ``alive`` must be called at least every ``seconds``; None: it need not be.

    Otherwise every thread's stack goes to the standard error, and the process ends, even where one of them never lets
    go of Python's lock. A process has one such clock: entering a second one stops the first.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._set_at = 0.0

    def alive(self) -> None:
        """Say that something has moved."""
        if self._seconds is not None and time.monotonic() - self._set_at > self._seconds / LOOKS:
            self._set()

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()

    def _set(self) -> None:
        assert self._seconds is not None
        self._set_at = time.monotonic()
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=STANDARD_ERROR)

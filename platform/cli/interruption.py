"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came while something was done that can be left undone."""


class Interruption:
    """While it is entered, the first signal is remembered in ``signal``; a second one raises ``KeyboardInterrupt``."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.signal: int | None = None
        self.hurry: Callable[[], None] = lambda: None
        """Called at the first signal, for whoever can finish sooner what is under way."""
        self._announce = announce
        self._abortable = False
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 otherwise."""
        return 0 if self.signal is None else 128 + self.signal

    def install(self) -> None:
        """Take the signals; again after a library, as Ray does, has taken them for itself."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    @contextmanager
    def abortable(self) -> Iterator[None]:
        """A block that a signal ends at once, by ``Interrupted``: a node that is taken away waits for no evaluation."""
        self._abortable = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._abortable = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # A forked environment process: a Ctrl-C meant for the training is none of its business, SIGTERM ends it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.signal is None:
            self.signal = number
            self._announce("Interrupted: finishing this step and saving a checkpoint (again to abort without saving).")
            self.hurry()
            if self._abortable:
                raise Interrupted
        else:
            self._announce("Aborted: what came after the last checkpoint is lost.")
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt

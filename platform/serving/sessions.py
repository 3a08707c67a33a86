"""Whom the policy remembers: a bounded number of recurrent states that expire."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from oneiros.platform.export.acting import State
from oneiros.platform.serving.refusals import TooManySessions, UnknownSession


@dataclass
class Session:
    """One remembered environment; ``state`` is None until its first step, and each entry ``(1, ...)`` from then on."""

    state: State | None
    used: float


class Sessions:
    """At most ``most`` sessions; one that is not used for ``idle_seconds`` is forgotten. Names cannot be guessed."""

    def __init__(
        self, most: int = 1_000, idle_seconds: float = 600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if most < 1 or not idle_seconds > 0:
            raise ValueError(f"sessions need most of at least 1 and idle_seconds above 0, not {most}, {idle_seconds}")
        self.most, self.idle_seconds = most, idle_seconds
        self.expired = 0
        self._clock = clock
        # In order of use, so that the first one is the one to expire first.
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self) -> str:
        """Begin a session and return its name; raises ``TooManySessions``."""
        self.expire()
        if len(self._sessions) >= self.most:
            raise TooManySessions(
                f"all {self.most} sessions are taken; close one, or try again after one has been idle for "
                f"{self.idle_seconds:g} s"
            )
        name = secrets.token_urlsafe(16)
        self._sessions[name] = Session(None, self._clock())
        return name

    def use(self, name: str) -> Session:
        """Return a session, which is in use now; raises ``UnknownSession``."""
        self.expire()
        if name not in self._sessions:
            raise UnknownSession(
                f"there is no session {name!r}: it was closed, or it was idle for {self.idle_seconds:g} s; "
                "POST /sessions opens one"
            )
        session = self._sessions[name]
        session.used = self._clock()
        self._sessions.move_to_end(name)
        return session

    def close(self, name: str) -> None:
        """Forget a session; raises ``UnknownSession``."""
        self.use(name)
        del self._sessions[name]

    def expire(self) -> None:
        """Forget what has been idle for too long."""
        deadline = self._clock() - self.idle_seconds
        while self._sessions and next(iter(self._sessions.values())).used <= deadline:
            self._sessions.popitem(last=False)
            self.expired += 1

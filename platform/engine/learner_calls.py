"""Asynchronous calls to the learners, in this process (on a thread) or in actors, with one interface.

RLlib's own asynchronous calls exist for actors only, and they hide a learner's death: its answers become error values,
and later calls leave it out. Here a dead learner raises ``LearnerDied``, and one that says nothing for too long is
ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.rllib.core.learner.learner_group import LearnerGroup

SECONDS_TO_SHOW = 5.0
"""How long the death of a learner may take to be known after another one failed because of it."""


class LearnerDied(RuntimeError):
    """A learner's process is gone; what it had not saved is lost."""


class Answer(NamedTuple):
    """What one call brought."""

    results: list[Any]
    """One a learner, by rank."""
    note: Any
    """What the caller gave along."""


class _Call(NamedTuple):
    waiting: list[Any]
    note: Any
    patient: bool


class LearnerCalls:
    """Calls methods of all learners of a group, in order, without waiting for them."""

    def __init__(self, group: LearnerGroup, threads: int | None = None, timeout: float | None = None) -> None:
        """``threads``: processor threads of a learner in this process; by default as many as there are.

        ``timeout``: seconds that learners in processes of their own may take for one call before they are ended and
        count as dead; None waits for ever.
        """
        self._local = group._learner if group.is_local else None
        self._actors: list[Any] = list(group._workers or [])
        self.learners = max(1, len(self._actors))
        self._thread = ThreadPoolExecutor(1, "learner", _use_threads(threads)) if group.is_local else None
        self._timeout = timeout
        self._calls: deque[_Call] = deque()
        self._oldest_since = 0.0

    @property
    def in_flight(self) -> int:
        """Calls that have been submitted and not yet been returned."""
        return len(self._calls)

    def submit(self, method: str, arguments: Sequence[dict[str, Any]], note: Any = None, patient: bool = False) -> None:
        """Call ``method`` on every learner, with the keyword arguments of its rank; ``note`` comes with the answer.

        ``patient``: however long it takes.
        """
        if self._thread is not None:
            waiting: list[Any] = [self._thread.submit(getattr(self._local, method), **arguments[0])]
        else:
            pairs = zip(self._actors, arguments, strict=True)
            waiting = [getattr(actor, method).remote(**given) for actor, given in pairs]
        if not self._calls:
            self._oldest_since = time.monotonic()
        self._calls.append(_Call(waiting, note, patient))

    def finished(self) -> list[Answer]:
        """Return the answers to calls that are done, oldest first; raises ``LearnerDied``, or what a learner raised."""
        answers = []
        while self._calls and self._is_done(self._calls[0]):
            answers.append(self._next())
        return answers

    def wait(self) -> list[Answer]:
        """Wait for all calls in flight and return their answers as ``finished`` does."""
        answers = []
        while self._calls:
            answers.append(self._next())
        return answers

    def call(self, method: str, arguments: Sequence[dict[str, Any]] | None = None, patient: bool = False) -> list[Any]:
        """Call ``method`` on every learner and wait (``patient``: however long); there must be nothing in flight."""
        assert not self._calls, "calls in flight would be mixed up with this one"
        self.submit(method, arguments or [{}] * self.learners, patient=patient)
        return self.wait()[0].results

    def settle(self) -> None:
        """Wait for the calls in flight, of learner processes some seconds each, and forget what becomes of them."""
        while self._calls:
            waiting = self._calls.popleft().waiting
            if self._thread is not None:
                waiting[0].exception()
            else:
                ray.wait(waiting, num_returns=len(waiting), timeout=SECONDS_TO_SHOW)

    def drop(self) -> None:
        """Forget the calls in flight."""
        self._calls.clear()

    def close(self) -> None:
        """Wait for the thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> Answer:
        call = self._calls.popleft()
        results = self._collect(call)
        self._oldest_since = time.monotonic()
        return Answer(results, call.note)

    def _is_done(self, call: _Call) -> bool:
        if self._thread is not None:
            return bool(call.waiting[0].done())
        ready, unready = ray.wait(call.waiting, num_returns=len(call.waiting), timeout=0)
        # A learner that died leaves the others waiting for it: one bad answer ends the wait for all.
        if not unready or any(_failed(reference) for reference in ready):
            return True
        if self._left(call) == 0.0:
            self._end(call.waiting)
        return False

    def _left(self, call: _Call) -> float | None:
        """Seconds that the oldest call may still take; None: as many as it wants."""
        if self._timeout is None or call.patient:
            return None
        return max(0.0, self._timeout - (time.monotonic() - self._oldest_since))

    def _end(self, waiting: list[Any]) -> NoReturn:
        """End the learners that owe an answer."""
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for actor, reference in zip(self._actors, waiting, strict=True):
            if reference not in ready:
                ray.kill(actor)
        raise LearnerDied(f"a learner said nothing for {self._timeout:g} s and was ended")

    def _collect(self, call: _Call) -> list[Any]:
        waiting = call.waiting
        if self._thread is not None:
            future: Future[Any] = waiting[0]
            return [future.result()]
        unready = list(waiting)
        while unready:
            ready, unready = ray.wait(unready, num_returns=1, timeout=self._left(call))
            if not ready:
                self._end(waiting)
            if _failed(ready[0]):
                # The others may have failed only because of one that is gone; give that one time to show.
                ray.wait(waiting, num_returns=len(waiting), timeout=SECONDS_TO_SHOW)
                self._raise(waiting)
        return [ray.get(reference) for reference in waiting]

    def _raise(self, waiting: list[Any]) -> None:
        """Raise what went wrong: a death before anything else, because it is the cause of the rest."""
        raised: RayTaskError | None = None
        for reference in ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]:
            try:
                ray.get(reference)
            except RayActorError as error:
                raise LearnerDied(f"a learner's process is gone ({str(error).splitlines()[0]})") from error
            except RayTaskError as error:
                raised = error
        assert raised is not None
        cause = raised.as_instanceof_cause()
        if self.learners > 1 and isinstance(cause, RuntimeError) and _is_broken_connection(cause):
            raise LearnerDied("a learner lost its connection to another one") from raised
        raise cause from raised


def _failed(reference: Any) -> bool:
    try:
        ray.get(reference)
    except (RayActorError, RayTaskError):
        return True
    return False


def _is_broken_connection(error: RuntimeError) -> bool:
    return any(word in str(error) for word in ("Connection closed", "Connection reset", "gloo", "NCCL"))


def _use_threads(threads: int | None) -> Callable[[], None]:
    def initialise() -> None:
        if threads is not None:
            torch.set_num_threads(threads)

    return initialise

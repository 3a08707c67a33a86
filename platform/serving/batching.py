"""Requests that arrive while the policy computes wait together and are answered by one forward pass."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Request = TypeVar("Request")


class Batcher(Generic[Request]):
    """Calls ``answer(requests)`` on a thread with everything that has come in since its last call, at most ``most``.

    Nobody waits for a batch to fill: alone, a request is answered at once; under load, batches grow by themselves.
    Belongs to one event loop.
    """

    def __init__(self, answer: Callable[[Sequence[Request]], list[Any]], most: int = 64) -> None:
        self._answer = answer
        self._most = most
        self._waiting: deque[tuple[Request, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "policy")
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Any:
        """Return the answer to ``request``; raises the exception that is its answer, or that ``answer`` raised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            # Who hung up meanwhile has not acted, so its state must not move on.
            batch = [(request, future) for request, future in taken if not future.done()]
            if not batch:
                continue
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, [request for request, _ in batch])
            except Exception as error:
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

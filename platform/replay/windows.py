"""Which windows of consecutive rows there are: counted exactly, found by rank in O(log n)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHIFT = 20
OFFSET_MASK = (1 << SHIFT) - 1

Ids = NDArray[np.int64]


def row_id(chunk: int, offset: int) -> int:
    """A row's stable name: 43 bits of chunk, 20 bits of offset in the chunk."""
    return chunk << SHIFT | offset


@dataclass(eq=False)
class Span:
    """Rows ``first`` to ``stop`` of one chunk, without a gap; ``next`` continues it at the head of another chunk."""

    slot: int
    chunk: int
    first: int
    stop: int
    previous: Span | None = None
    next: Span | None = None


@dataclass(frozen=True)
class Grown:
    """Windows that became whole: their first rows are ``first + k * stride`` of ``chunk``, for k below ``count``."""

    chunk: int
    first: int
    count: int


class Windows:
    """All windows of ``length`` rows that are contiguous in time, in slots that a span keeps while it lives.

    A window may begin at every row whose offset in its chunk is a multiple of ``stride``. The order of slots is part
    of a replay's state: the same random rank must find the same window after a restore.
    """

    def __init__(self, length: int, stride: int) -> None:
        self.length = length
        self.stride = stride
        self.spans: list[Span | None] = []
        self.starts = np.zeros(0, np.int64)
        """Windows that begin in each slot's span."""
        self.clocks = np.zeros((0, 2), np.int64)
        """The replay's clock at the first and the last row of each slot's span."""
        self._head = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._of_chunk: dict[int, list[Span]] = {}
        self._cumulative: Ids | None = None

    @property
    def cumulative(self) -> Ids:
        """Running sum of ``starts``."""
        if self._cumulative is None:
            self._cumulative = np.cumsum(self.starts)
        return self._cumulative

    @property
    def total(self) -> int:
        """Number of windows."""
        return int(self.cumulative[-1]) if len(self.starts) else 0

    def locate(self, ranks: Ids) -> Ids:
        """Ids of the first rows of windows number ``ranks`` ``(n,)``, each below ``total``."""
        slots = np.searchsorted(self.cumulative, ranks, side="right")
        return self.locate_in(slots, ranks - self.cumulative[slots] + self.starts[slots])

    def locate_in(self, slots: Ids, places: Ids) -> Ids:
        """Ids of the first rows of windows number ``places`` of each slot's span, both ``(n,)``."""
        return self._head[slots] + places * self.stride

    def open(self, chunk: int, first: int, clock: int, previous: Span | None = None, slot: int | None = None) -> Span:
        """Begin a span at row ``first`` of ``chunk``; ``previous`` is the span that it continues."""
        if slot is None:
            slot = heapq.heappop(self._free) if self._free else len(self.spans)
        if slot >= len(self.spans):
            self._grow(slot + 1)
        span = Span(slot, chunk, first, first, previous)
        if previous is not None:
            previous.next = span
        self.spans[slot] = span
        self._of_chunk.setdefault(chunk, []).append(span)
        self._head[slot] = row_id(chunk, self._aligned(first))
        self.clocks[slot] = clock
        self.starts[slot] = 0
        return span

    def extend(self, span: Span, stop: int, clock: int) -> list[Grown]:
        """Let ``span`` reach to row ``stop``; returns the windows that this completed, here and in spans before."""
        new = stop - span.stop
        span.stop = stop
        self.clocks[span.slot, 1] = clock
        grown = []
        reach = 0
        current: Span | None = span
        while current is not None:
            count = self._count(current, reach)
            before = int(self.starts[current.slot])
            if count > before:
                first = self._aligned(current.first) + before * self.stride
                grown.append(Grown(current.chunk, first, count - before))
                self.starts[current.slot] = count
                self._cumulative = None
            reach += current.stop - current.first
            if reach - new >= self.length - 1:
                break  # All windows that begin further back were whole before.
            current = current.previous
        return grown

    def drop(self, chunk: int) -> None:
        """Forget the spans of ``chunk``, which must be the oldest: no span that is left reaches into it."""
        for span in self._of_chunk.pop(chunk, []):
            if span.next is not None:
                span.next.previous = None
            self.spans[span.slot] = None
            self.starts[span.slot] = 0
            heapq.heappush(self._free, span.slot)
            self._cumulative = None

    def of_chunk(self, chunk: int) -> list[Span]:
        """The spans of ``chunk``, in order."""
        return self._of_chunk.get(chunk, [])

    def contains(self, chunk: int, offset: int) -> bool:
        """Whether a window begins at row ``offset`` of ``chunk``."""
        for span in self.of_chunk(chunk):
            place, rest = divmod(offset - self._aligned(span.first), self.stride)
            if rest == 0 and 0 <= place < self.starts[span.slot]:
                return True
        return False

    def grown(self) -> list[Grown]:
        """All windows, as if they had just become whole."""
        return [
            Grown(span.chunk, self._aligned(span.first), int(self.starts[span.slot]))
            for span in self.spans
            if span is not None and self.starts[span.slot]
        ]

    def recount(self, slots: int) -> None:
        """After a restore put the spans back: have ``slots`` slots, free those without a span, count all windows."""
        if slots > len(self.spans):
            self._grow(slots)
        for span in self.spans:
            if span is None:
                continue
            reach, later = 0, span.next
            while later is not None and reach < self.length:
                reach, later = reach + later.stop - later.first, later.next
            self.starts[span.slot] = self._count(span, reach)
        self._cumulative = None
        self._free = [slot for slot, span in enumerate(self.spans) if span is None]
        heapq.heapify(self._free)

    def _aligned(self, offset: int) -> int:
        return -(-offset // self.stride) * self.stride

    def _count(self, span: Span, reach: int) -> int:
        last = min(span.stop + reach - self.length, span.stop - 1)
        return max(0, (last - self._aligned(span.first)) // self.stride + 1)

    def _grow(self, size: int) -> None:
        room = size - len(self.spans)
        self.spans.extend([None] * room)
        self.starts = np.concatenate([self.starts, np.zeros(room, np.int64)])
        self._head = np.concatenate([self._head, np.zeros(room, np.int64)])
        self.clocks = np.concatenate([self.clocks, np.zeros((room, 2), np.int64)])
        self._cumulative = None

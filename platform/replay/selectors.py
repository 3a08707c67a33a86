"""Who chooses which windows to replay: fresh ones in turn, then uniform, prioritised or recent ones, or a mixture.

A window is named by the id of its first row. A selector draws from the windows that there are, with the random
generator that it is given, so the whole choice is a function of the replay's state.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.replay.windows import OFFSET_MASK, SHIFT, Grown, Ids, Windows

Floats = NDArray[np.float64]
State = dict[str, NDArray[Any]]


class Selector(Protocol):
    """Draws windows with replacement."""

    def draw(self, windows: Windows, count: int, generator: np.random.Generator) -> Ids:
        """Ids of the first rows of ``count`` windows; ``windows.total`` is positive."""

    def grew(self, grown: Iterable[Grown]) -> None:
        """Windows became whole."""

    def dropped(self, chunk: int) -> None:
        """All windows that begin in ``chunk`` are gone."""

    def prioritise(self, starts: Ids, signal: Floats) -> None:
        """How much was learnt from the windows beginning at ``starts``, both ``(n,)``, non-negative and finite."""

    def state_dict(self) -> State:
        """What a restored selector needs beyond the windows themselves."""

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore, after `grew` was told of all windows."""


class Stateless:
    """The parts of a `Selector` that one without memory leaves empty."""

    def grew(self, grown: Iterable[Grown]) -> None:
        """Nothing to remember."""

    def dropped(self, chunk: int) -> None:
        """Nothing to forget."""

    def prioritise(self, starts: Ids, signal: Floats) -> None:
        """Signals make no difference here."""

    def state_dict(self) -> State:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Nothing to restore."""


class Uniform(Stateless):
    """Every window is as likely as any other one."""

    def draw(self, windows: Windows, count: int, generator: np.random.Generator) -> Ids:
        """See `Selector.draw`."""
        return windows.locate(generator.integers(windows.total, size=count))


class Recency(Stateless):
    """A window ``half_life`` rows older than another one is half as likely.

    Age is measured in rows that the whole replay took in since, and taken to rise linearly within a span.
    """

    def __init__(self, half_life: float) -> None:
        if not half_life > 0:
            raise ValueError(f"The half-life of recency-weighted replay is {half_life}; it must be above 0 rows.")
        self.half_life = half_life

    def draw(self, windows: Windows, count: int, generator: np.random.Generator) -> Ids:
        """See `Selector.draw`."""
        first, last = windows.clocks.astype(np.float64).T
        extent = (last - first) / self.half_life * np.log(2)
        mean = np.divide(-np.expm1(-extent), extent, out=np.ones_like(extent), where=extent > 0)
        alive = windows.starts > 0
        newest = last[alive].max()
        weights = windows.starts * np.exp2(np.where(alive, last - newest, 0.0) / self.half_life) * mean
        cumulative = np.cumsum(weights)
        slots = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
        uniform, grade = generator.random(count), extent[slots]
        # Inverse of the distribution function of a density that grows as exp(grade * u) over [0, 1).
        curved = np.log1p(uniform * np.expm1(grade)) / np.where(grade > 0, grade, 1.0)
        places = np.where(grade > 0, curved, uniform) * windows.starts[slots]
        return windows.locate_in(slots, np.minimum(places.astype(np.int64), windows.starts[slots] - 1))


class SumTree:
    """Non-negative weights, their sum, and the leaf at a given point of the running sum: O(log n) each."""

    def __init__(self) -> None:
        self.size = 1
        self.nodes = np.zeros(2, np.float64)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.nodes[1])

    def __getitem__(self, leaf: int) -> float:
        return float(self.nodes[self.size + leaf])

    def __setitem__(self, leaf: int, weight: float) -> None:
        while leaf >= self.size:
            self._double()
        node = self.size + leaf
        self.nodes[node] = weight
        # Sums are taken anew, not adjusted: rounding cannot pile up, and equal leaves make equal trees.
        while node > 1:
            node //= 2
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, points: Floats) -> tuple[Ids, Floats]:
        """Leaves that hold ``points`` ``(n,)`` of the running sum, and how far into each leaf's weight they lie."""
        nodes = np.ones(len(points), np.int64)
        rest = points.copy()
        while nodes[0] < self.size:
            left, right = self.nodes[2 * nodes], self.nodes[2 * nodes + 1]
            # Rounding may leave a point just past the last weight: an empty right half is never entered.
            goes_right = (rest >= left) & (right > 0)
            rest = np.where(goes_right, rest - left, np.minimum(rest, left))
            nodes = 2 * nodes + goes_right
        return nodes - self.size, rest

    def _double(self) -> None:
        leaves = self.nodes[self.size :]
        self.size *= 2
        self.nodes = np.zeros(2 * self.size, np.float64)
        self.nodes[self.size : self.size + len(leaves)] = leaves
        start = self.size
        while start > 1:
            start //= 2
            below = self.nodes[2 * start : 4 * start]
            self.nodes[start : 2 * start] = below[0::2] + below[1::2]


class Prioritised:
    """A window is drawn in proportion to ``(signal + floor) ** exponent`` of the last signal about it.

    New windows get the largest signal seen so far, so each is drawn soon. A sum tree over chunks finds the chunk,
    a running sum in that chunk the window.
    """

    def __init__(self, stride: int, exponent: float = 0.8, floor: float = 1e-4) -> None:
        if exponent < 0:
            raise ValueError(f"The exponent of prioritised replay is {exponent}; it must be 0 (uniform) or above.")
        self.stride = stride
        self.exponent = exponent
        self.floor = floor
        self.largest = 1.0
        self._tree = SumTree()
        self._weights: dict[int, Floats] = {}
        self._leaf_of: dict[int, int] = {}
        self._chunk_of: dict[int, int] = {}
        self._free: list[int] = []

    def draw(self, windows: Windows, count: int, generator: np.random.Generator) -> Ids:
        """See `Selector.draw`."""
        leaves, rest = self._tree.find(generator.random(count) * self._tree.total)
        starts = np.empty(count, np.int64)
        for index, (leaf, point) in enumerate(zip(leaves.tolist(), rest.tolist(), strict=True)):
            chunk = self._chunk_of[leaf]
            weights = self._weights[chunk]
            cumulative = np.cumsum(weights)
            place = int(np.searchsorted(cumulative, point, side="right"))
            if place == len(weights):
                place = int(np.flatnonzero(weights)[-1])
            starts[index] = chunk << SHIFT | place * self.stride
        return starts

    def grew(self, grown: Iterable[Grown]) -> None:
        """See `Selector.grew`."""
        weight = self._weight(self.largest)
        for new in grown:
            first = new.first // self.stride
            if new.chunk not in self._weights:
                leaf = heapq.heappop(self._free) if self._free else len(self._leaf_of)
                self._leaf_of[new.chunk], self._chunk_of[leaf] = leaf, new.chunk
                self._weights[new.chunk] = np.zeros(0, np.float64)
            weights = self._weights[new.chunk]
            if first + new.count > len(weights):
                room = max(first + new.count, 2 * len(weights)) - len(weights)
                weights = self._weights[new.chunk] = np.concatenate([weights, np.zeros(room, np.float64)])
            weights[first : first + new.count] = weight
            self._refresh(new.chunk)

    def dropped(self, chunk: int) -> None:
        """See `Selector.dropped`."""
        if chunk in self._weights:
            leaf = self._leaf_of.pop(chunk)
            del self._weights[chunk], self._chunk_of[leaf]
            self._tree[leaf] = 0.0
            heapq.heappush(self._free, leaf)

    def prioritise(self, starts: Ids, signal: Floats) -> None:
        """See `Selector.prioritise`."""
        touched = set()
        for start, value in zip(starts.tolist(), signal.tolist(), strict=True):
            chunk, place = start >> SHIFT, (start & OFFSET_MASK) // self.stride
            weights = self._weights.get(chunk)
            # A weight of zero means that no window begins there; it must not get one.
            if weights is not None and place < len(weights) and weights[place] > 0:
                weights[place] = self._renewed(chunk, place, value)
                self.largest = max(self.largest, value)
                touched.add(chunk)
        for chunk in touched:
            self._refresh(chunk)

    def state_dict(self) -> State:
        """See `Selector.state_dict`."""
        chunks = np.array(list(self._weights), np.int64)
        return {
            "largest": np.array(self.largest),
            "chunks": chunks,
            "leaves": np.array([self._leaf_of[chunk] for chunk in chunks.tolist()], np.int64),
            "lengths": np.array([len(self._weights[chunk]) for chunk in chunks.tolist()], np.int64),
            "weights": np.concatenate([np.zeros(0), *self._weights.values()]),
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Selector.load_state_dict`; windows that are not there any more (a damaged chunk) are left out."""
        self.largest = float(state["largest"])
        known = dict(self._weights)
        stops = np.cumsum(state["lengths"])
        for chunk in known:
            self.dropped(chunk)
        self._tree = SumTree()
        order = zip(state["chunks"].tolist(), state["leaves"].tolist(), (stops - state["lengths"]), stops, strict=True)
        for chunk, leaf, start, stop in order:
            if chunk in known:
                self._leaf_of[chunk], self._chunk_of[leaf] = leaf, chunk
                weights = np.array(state["weights"][start:stop], np.float64)
                weights[np.flatnonzero(known[chunk] == 0)] = 0.0
                weights[len(known[chunk]) :] = 0.0
                self._weights[chunk] = weights
                self._refresh(chunk)
        used = set(self._chunk_of)
        self._free = [leaf for leaf in range(max(used, default=-1) + 1) if leaf not in used]

    def _weight(self, signal: float) -> float:
        return float((signal + self.floor) ** self.exponent)

    def _renewed(self, chunk: int, place: int, signal: float) -> float:
        """The weight of a window that was replayed and taught ``signal``."""
        return self._weight(signal)

    def _refresh(self, chunk: int) -> None:
        self._tree[self._leaf_of[chunk]] = float(self._weights[chunk].sum())


class Curious(Prioritised):
    """Curious Replay (arXiv:2306.15934): ``novelty * decay ** visits + (signal + floor) ** exponent``.

    What was seldom replayed is drawn often, and so is what the model predicts badly.
    """

    def __init__(
        self, stride: int, exponent: float = 0.7, floor: float = 0.01, novelty: float = 1e4, decay: float = 0.7
    ) -> None:
        super().__init__(stride, exponent, floor)
        self.novelty, self.decay = novelty, decay
        self._visits: dict[int, Counter[int]] = {}

    def dropped(self, chunk: int) -> None:
        """See `Selector.dropped`."""
        super().dropped(chunk)
        self._visits.pop(chunk, None)

    def state_dict(self) -> State:
        """See `Selector.state_dict`."""
        rows = [(chunk, *visit) for chunk, visits in self._visits.items() for visit in visits.items()]
        return {**super().state_dict(), "visits": np.array(rows, np.int64).reshape(-1, 3)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Selector.load_state_dict`."""
        super().load_state_dict(state)
        self._visits = {}
        for chunk, place, count in state["visits"].tolist():
            if chunk in self._weights:
                self._visits.setdefault(chunk, Counter())[place] = count

    def _weight(self, signal: float) -> float:
        return self.novelty + super()._weight(signal)

    def _renewed(self, chunk: int, place: int, signal: float) -> float:
        visits = self._visits.setdefault(chunk, Counter())
        visits[place] += 1
        return self.novelty * self.decay ** visits[place] + super()._weight(signal)


class Mixture:
    """Each draw asks one of several selectors, chosen at random with the given fractions."""

    def __init__(self, parts: Mapping[str, tuple[float, Selector]]) -> None:
        fractions = np.array([fraction for fraction, _ in parts.values()], np.float64)
        if not len(parts) or (fractions < 0).any() or abs(fractions.sum() - 1) > 1e-6:
            given = ", ".join(f"{name}={fraction:g}" for name, (fraction, _) in parts.items())
            raise ValueError(f"The fractions of a replay mixture must be non-negative and sum to 1, not: {given}.")
        self.names = list(parts)
        self.selectors = [selector for _, selector in parts.values()]
        self.fractions = fractions / fractions.sum()

    def draw(self, windows: Windows, count: int, generator: np.random.Generator) -> Ids:
        """See `Selector.draw`."""
        if len(self.selectors) == 1:
            return self.selectors[0].draw(windows, count, generator)
        counts = generator.multinomial(count, self.fractions).tolist()
        asked = zip(self.selectors, counts, strict=True)
        return np.concatenate([selector.draw(windows, n, generator) for selector, n in asked if n])

    def grew(self, grown: Iterable[Grown]) -> None:
        """See `Selector.grew`."""
        grown = list(grown)
        for selector in self.selectors:
            selector.grew(grown)

    def dropped(self, chunk: int) -> None:
        """See `Selector.dropped`."""
        for selector in self.selectors:
            selector.dropped(chunk)

    def prioritise(self, starts: Ids, signal: Floats) -> None:
        """See `Selector.prioritise`."""
        for selector in self.selectors:
            selector.prioritise(starts, signal)

    def state_dict(self) -> State:
        """The parts' states, each under its part's name."""
        parts = zip(self.names, self.selectors, strict=True)
        return {f"{name}/{key}": value for name, part in parts for key, value in part.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the parts; one that the state does not know begins anew."""
        for name, part in zip(self.names, self.selectors, strict=True):
            own = {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}
            if own:
                part.load_state_dict(own)


class OnlineQueue:
    """Fresh windows, each to be replayed once, in the order in which they became whole; they do not overlap."""

    def __init__(self, length: int, stride: int) -> None:
        self.length = length
        self.step = -(-length // stride) * stride
        self.stride = stride
        self._queue: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def first_pending(self, offset: int) -> int:
        """What a stream has pending before the row at ``offset``, where a span without predecessor begins."""
        return -(-offset % self.stride)

    def push(self, starts: Iterable[int]) -> None:
        """Queue windows by the ids of their first rows."""
        self._queue.extend(starts)

    def pop(self, count: int) -> list[int]:
        """Take up to ``count`` windows."""
        return [self._queue.popleft() for _ in range(min(count, len(self._queue)))]

    def drop(self, chunk: int) -> int:
        """Forget the windows that begin in ``chunk``; returns how many."""
        kept = deque(start for start in self._queue if start >> SHIFT != chunk)
        dropped = len(self._queue) - len(kept)
        self._queue = kept
        return dropped

    def state(self) -> list[int]:
        """The queue, oldest first."""
        return list(self._queue)

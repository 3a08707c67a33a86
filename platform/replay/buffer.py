"""The replay: takes chunks of experience in, gives batches of windows out, takes refreshed latents back.

Shapes: ``N`` streams of ``T`` rows come in; ``B`` windows of ``context + length`` rows go out. A **stream** is what one
environment produced, row by row; a **window** is a run of consecutive rows of one stream, which may contain the end of
an episode and the beginning of the next one, as in DreamerV3 (Hafner et al., Nature 2025).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from oneiros.algorithms.contract import LATENT_VALID
from oneiros.platform.replay import snapshot
from oneiros.platform.replay.blocks import Array, columns_of, is_full
from oneiros.platform.replay.chunks import Chunk, ReplayMismatch, Schema, create_chunk
from oneiros.platform.replay.directory import Directory, mappable_chunks
from oneiros.platform.replay.gather import gather
from oneiros.platform.replay.rows import LATENT, checked_latents, checked_rows, row_bytes
from oneiros.platform.replay.selectors import Curious, Mixture, OnlineQueue, Prioritised, Recency, Selector, Uniform
from oneiros.platform.replay.windows import OFFSET_MASK, SHIFT, Ids, Span, Windows, row_id

if TYPE_CHECKING:
    from oneiros.algorithms.contract import Field

logger = logging.getLogger(__name__)

SPARE_CHUNKS = 512
"""Chunks beyond twice what the capacity fills: those still filling, or left unfinished by streams that ended."""

COUNTERS = (
    "inserted",
    "sampled",
    "sampled_online",
    "written_back",
    "write_back_missed",
    "evicted",
    "dropped",
    "disk_full",
    "quarantined",
    "recovered",
    "latents_lost",
    "signals_ignored",
)
Batch = dict[str, Array]


class ReplayNotReady(RuntimeError):
    """A batch was asked for before there was a single whole window."""


class Experience(Protocol):
    """What a rollout hands over: entries ``(N, T, ...)``, contiguous in time for each of ``streams`` ``(N,)``."""

    @property
    def rows(self) -> Mapping[str, Array]:
        """The rows by key, as in ``algorithms/contract.py``."""

    @property
    def streams(self) -> NDArray[np.int64]:
        """Which stream each of the ``N`` belongs to."""


@dataclass(eq=False)
class Stream:
    """A stream that may go on: where its last row lies, and what that row lets follow.

    ``last`` is the last row's ``is_last``, or None if nothing may join. ``pending`` counts its rows that no fresh
    window has taken yet; below zero, rows to skip.
    """

    chunk: Chunk
    span: Span
    last: bool | None
    pending: int


class Replay:
    """Up to ``capacity`` rows of experience, sampled in windows of ``context + length`` rows.

    ``fields`` describes a row (``Agent.latent_fields`` under ``latent/``); it must have ``is_first`` and ``is_last``.
    ``directory``: where chunks are mapped from disk, one directory a shard; what it holds already is taken over, and
    what a killed process had added stays. None: memory. ``mixture`` gives the fractions of ``"uniform"``,
    ``"priority"``, ``"curious"`` and ``"recency"`` draws; ``online`` serves each fresh window once before any of these.
    ``latent_stride`` keeps latents of every k-th row only; windows then begin at such rows.
    ``chunk_rows`` is the grain of eviction and of files. All methods may be called from several threads.

    Raises ``ValueError`` for settings that cannot work, `ReplayMismatch` if ``directory`` holds other rows,
    `DirectoryInUse` if another replay has it.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        *,
        capacity: int,
        length: int = 64,
        context: int = 1,
        batch: int = 16,
        directory: Path | str | None = None,
        seed: int = 0,
        online: bool = True,
        mixture: Mapping[str, float] | None = None,
        recency_half_life: float | None = None,
        priority_exponent: float = 0.8,
        latent_stride: int = 1,
        chunk_rows: int | None = None,
    ) -> None:
        for name, value, least in [
            ("length", length, 1),
            ("context", context, 0),
            ("batch", batch, 1),
            ("latent_stride", latent_stride, 1),
        ]:
            if value < least:
                raise ValueError(f"Replay {name} is {value}; it must be at least {least}.")
        missing = [key for key in ("is_first", "is_last") if key not in fields]
        if missing:
            raise ValueError(f"Replay needs the field {missing[0]!r}; given are: {', '.join(sorted(fields))}.")
        if latent_stride > 1 and context != 1:
            raise ValueError(f"Replay latent_stride {latent_stride} needs context 1, not {context}.")
        self.window = context + length
        if chunk_rows is None:
            fewest = -(-2 * capacity // max(1, mappable_chunks() - SPARE_CHUNKS))
            chunk_rows = max(self.window, min(1024, capacity // 64), min(fewest, capacity))
        chunk_rows = -(-chunk_rows // latent_stride) * latent_stride
        if not self.window <= capacity or not chunk_rows <= capacity:
            least = max(self.window, chunk_rows)
            raise ValueError(f"Replay capacity is {capacity} rows; windows and chunks of {least} rows do not fit.")
        if not 1 <= chunk_rows <= OFFSET_MASK:
            raise ValueError(f"Replay chunk_rows is {chunk_rows}; it must be between 1 and {OFFSET_MASK}.")
        latents = {key: field for key, field in fields.items() if key.startswith(LATENT)}
        others = {key: field for key, field in fields.items() if key not in latents}
        self.schema = Schema(columns_of(others), columns_of(latents), latent_stride)
        self.capacity, self.length, self.context, self.batch = capacity, length, context, batch
        self.chunk_rows = chunk_rows
        self.max_chunks = 2 * -(-capacity // chunk_rows) + SPARE_CHUNKS
        self.online = online
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.lock = threading.RLock()
        half_life = capacity / 10 if recency_half_life is None else recency_half_life
        choices: dict[str, Callable[[], Selector]] = {
            "uniform": Uniform,
            "priority": lambda: Prioritised(latent_stride, priority_exponent),
            "curious": lambda: Curious(latent_stride),
            "recency": lambda: Recency(half_life),
        }
        shares = mixture or {"uniform": 1.0}
        for name in shares:
            if name not in choices:
                raise ValueError(f"Unknown replay selector {name!r}; choose among: {', '.join(choices)}.")
        parts = {name: (share, choices[name]) for name, share in shares.items()}
        self._new_selector: Callable[[], Mixture] = lambda: Mixture({n: (s, new()) for n, (s, new) in parts.items()})
        self.clear()
        self.directory = Directory(Path(directory), self.max_chunks) if directory is not None else None
        if self.directory is not None:
            snapshot.recover(self, self.directory)

    def clear(self) -> None:
        """Forget all rows, as if nothing had ever been added; files of chunks that are left are the caller's."""
        self.chunks: dict[int, Chunk] = {}
        self.streams: dict[int, Stream] = {}
        self.windows = Windows(self.window, self.schema.stride)
        self.queue = OnlineQueue(self.window, self.schema.stride)
        self.selector = self._new_selector()
        self.rows = 0
        self.next_chunk = 0
        self.clock = 0
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.saved = snapshot.SavedState()

    def empty(self) -> None:
        """Forget all rows, and remove the files that hold them; what was saved elsewhere stays."""
        with self.lock:
            self.clear()
            if self.directory is not None:
                self.directory.wipe()

    def __len__(self) -> int:
        return self.rows

    @property
    def ready(self) -> bool:
        """Whether there is a whole window to sample."""
        with self.lock:
            return self.windows.total > 0

    # ------------------------------------------------------------------------------------------------------- rows in

    def add(self, chunk: Experience, *, continues: ArrayLike = True, fresh: bool = True) -> int:
        """Take ``(N, T, ...)`` rows in; returns how many were stored.

        A row joins the one before it in its stream if one's ``is_last`` equals the other's ``is_first``: an episode
        that breaks off without an end (its runner died) never runs into another one. ``continues`` (``(N,)`` or one
        bool) is False for streams of which rows are missing before this chunk. ``fresh`` rows enter the online queue.
        Rows may lack all latents, or some (``latent_valid``); these count as invalid until written back.

        A full disk costs the oldest chunks that this replay alone holds, or else these rows: counted, logged once.
        Raises `ReplayMismatch` naming the first entry that does not fit.
        """
        rows, shape = checked_rows(self.schema, chunk.rows)
        streams = np.asarray(chunk.streams)
        if streams.shape != shape[:1]:
            raise ReplayMismatch(f"There are rows of {shape[0]} streams, but stream ids of shape {streams.shape}.")
        may_join = np.broadcast_to(np.asarray(continues, bool), shape[:1])
        is_first, is_last = np.asarray(rows["is_first"], bool), np.asarray(rows["is_last"], bool)
        joins = np.zeros(shape, bool)
        joins[:, 1:] = is_last[:, :-1] == is_first[:, 1:]
        bring_latents = bool(self.schema.latents) and self.schema.latents[0][0] in rows
        valid = rows.pop(LATENT_VALID, np.ones(shape, bool)) if bring_latents else None
        with self.lock:
            before = self.counters["inserted"]
            born, self.clock = self.clock, self.clock + joins.size
            for index, stream in enumerate(streams.tolist()):
                known = self.streams.get(stream)
                joins[index, 0] = known is not None and bool(may_join[index]) and known.last == bool(is_first[index, 0])
                own = {key: value[index] for key, value in rows.items()}
                own_valid = None if valid is None else valid[index]
                self.append(stream, own, joins[index], own_valid, bool(is_last[index, -1]), born, fresh)
            return self.counters["inserted"] - before

    def end_streams(self, streams: NDArray[np.int64] | None = None) -> None:
        """Let nothing join what ``streams`` (all if None) have so far: their runner is gone, or steps were lost."""
        with self.lock:
            for name in self.streams if streams is None else streams.tolist():
                if name in self.streams:
                    self.streams[name].last = None

    def append(
        self,
        stream: int,
        rows: Mapping[str, Array],
        joins: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None,
        last: bool,
        born: int,
        fresh: bool,
    ) -> None:
        """Store ``(T, ...)`` rows of one stream; for `add` and for whoever copies rows from another replay."""
        done, total = 0, len(joins)
        while done < total:
            state = self.streams.get(stream)
            count = min(total - done, state.chunk.room if state and state.chunk.room else self.chunk_rows)
            self.shrink(count)
            state = self.streams.get(stream)
            if state is None or not state.chunk.room:
                state = self._open(stream, state if joins[done] else None, born)
                if state is None:
                    self.counters["dropped"] += total - done
                    return
                count = min(count, state.chunk.room)
            part = slice(done, done + count)
            joined = joins[part].copy()
            joined[0] &= state.span.stop > state.span.first or state.span.previous is not None
            start = state.chunk.count
            state.chunk.append(rows, part, joined, None if valid is None else valid[part], self.clock)
            self._index(state, start, joined, born, fresh)
            self.rows += count
            self.counters["inserted"] += count
            done += count
        self.streams[stream].last = last

    def _index(self, state: Stream, start: int, joined: NDArray[np.bool_], born: int, fresh: bool) -> None:
        edges = [0, *(np.flatnonzero(~joined[1:]) + 1).tolist(), len(joined)]
        for begin, stop in pairwise(edges):
            if not joined[begin] and start + begin > state.span.first:
                state.span = self.windows.open(state.chunk.id, start + begin, born)
                state.pending = self.queue.first_pending(start + begin)
            self.selector.grew(self.windows.extend(state.span, start + stop, self.clock))
            state.pending += stop - begin
            if fresh and self.online:
                self._queue_fresh(state)

    def _queue_fresh(self, state: Stream) -> None:
        while state.pending >= self.window:
            span, back = state.span, state.pending
            while back > span.stop - span.first and span.previous is not None:
                back -= span.stop - span.first
                span = span.previous
            if back <= span.stop - span.first:
                self.queue.push([row_id(span.chunk, span.stop - back)])
            state.pending -= self.queue.step

    def _open(self, stream: int, before: Stream | None, born: int) -> Stream | None:
        directory = self.directory.path if self.directory else None
        previous = before.chunk.id if before else -1
        while True:
            try:
                chunk = create_chunk(self.schema, directory, self.next_chunk, stream, previous, self.chunk_rows, born)
                break
            except OSError as error:
                if not is_full(error):
                    raise
                if not self._make_space(error):
                    self.streams.pop(stream, None)
                    return None
                if before is not None and before.chunk.id not in self.chunks:
                    before, previous = None, -1
        self.next_chunk += 1
        self.chunks[chunk.id] = chunk
        span = self.windows.open(chunk.id, 0, born, before.span if before else None)
        if before is not None:
            before.chunk.next = chunk
        state = Stream(chunk, span, None, before.pending if before else self.queue.first_pending(0))
        self.streams[stream] = state
        self.shrink()
        return state

    def shrink(self, room: int = 0) -> None:
        """Evict the oldest chunks until ``room`` more rows fit."""
        while self.rows + room > self.capacity or len(self.chunks) > self.max_chunks:
            self._evict()

    def _make_space(self, error: OSError) -> bool:
        if not self.counters["disk_full"]:
            logger.warning("Replay found the disk full and now makes do with what it holds: %s", error)
        self.counters["disk_full"] += 1
        oldest = next(iter(self.chunks.values()), None)
        if oldest is None or any(path.stat().st_nlink > 1 for path in oldest.files()):
            return False
        self._evict()
        return True

    def _evict(self) -> None:
        number, chunk = next(iter(self.chunks.items()))
        del self.chunks[number]
        self.windows.drop(number)
        self.selector.dropped(number)
        self.queue.drop(number)
        self.rows -= chunk.count
        self.counters["evicted"] += chunk.count
        state = self.streams.get(chunk.stream)
        if state is not None and state.chunk is chunk:
            del self.streams[chunk.stream]
        for path in chunk.files():
            path.unlink(missing_ok=True)

    # --------------------------------------------------------------------------------------------------- batches out

    def batch_shapes(self, batch: int | None = None) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of every entry of a sampled batch."""
        size = batch or self.batch
        shapes = {name: ((size, self.window, *shape), np.dtype(dtype)) for name, dtype, shape in self.schema.rows}
        if self.schema.latents and self.context:
            for name, dtype, shape in self.schema.latents:
                shapes[name] = ((size, self.context, *shape), np.dtype(dtype))
            shapes["latent_valid"] = ((size,), np.dtype(bool))
        shapes["row_id"] = ((size, self.window), np.dtype(np.int64))
        return shapes

    def sample(self, batch: int | None = None, *, apart: bool = False, out: Batch | None = None) -> Batch:
        """A batch of windows: fresh ones first, then as the mixture has it.

        Entries are ``(B, context + length, ...)``; ``latent/*`` are ``(B, context, ...)``, the state to start from,
        and ``latent_valid`` ``(B,)`` says where it was ever known; ``row_id`` ``(B, context + length)`` int64 is what
        `write_back` and `prioritise` want. ``out``: arrays to fill, as in `batch_shapes`; else new ones.
        ``apart`` is not for training: fresh windows stay queued, and later batches are what they would have been.
        Raises `ReplayNotReady` without a single whole window.
        """
        size = batch or self.batch
        if out is None:
            out = {name: np.empty(shape, dtype) for name, (shape, dtype) in self.batch_shapes(size).items()}
        with self.lock:
            if self.windows.total == 0:
                raise ReplayNotReady(f"Replay has {self.rows} rows, but no {self.window} consecutive ones yet.")
            starts = [] if apart else self.queue.pop(size)
            if not apart:
                self.counters["sampled"] += size
                self.counters["sampled_online"] += len(starts)
            if len(starts) < size:
                generator = deepcopy(self.generator) if apart else self.generator
                drawn = self.selector.draw(self.windows, size - len(starts), generator)
                starts.extend(drawn.tolist())
            for index, start in enumerate(starts):
                gather(self.schema, self.context, out, index, self.chunks[start >> SHIFT], start & OFFSET_MASK)
        return out

    # ------------------------------------------------------------------------------------------------- learnt things

    def write_back(self, row_id: Ids, latents: Mapping[str, Array]) -> int:
        """Replace the latents of rows ``row_id`` ``(B, T)``; returns how many of these rows are still there.

        ``latents`` entries are ``(B, T, ...)``, with or without the ``latent/`` prefix; rows in between the stored
        ones (``latent_stride``) are left out. Rows evicted meanwhile are counted and ignored.
        Raises `ReplayMismatch` naming the first entry that does not fit.
        """
        values = checked_latents(self.schema, row_id, latents)
        if not values:
            return 0
        found = 0
        gaps = np.diff(row_id, axis=1) != 1
        with self.lock:
            for index in range(len(row_id)):
                edges = [0, *(np.flatnonzero(gaps[index]) + 1).tolist(), row_id.shape[1]]
                for start, stop in pairwise(edges):
                    first = int(row_id[index, start])
                    chunk = self.chunks.get(first >> SHIFT)
                    if chunk is not None and (first & OFFSET_MASK) + stop - start <= chunk.count:
                        part = {name: value[index, start:stop] for name, value in values.items()}
                        chunk.write_latents(first & OFFSET_MASK, part)
                        found += stop - start
            self.counters["written_back"] += found
            self.counters["write_back_missed"] += row_id.size - found
        return found

    def prioritise(self, row_id: Ids, signal: ArrayLike) -> None:
        """Tell the prioritised selector how much each window taught: ``row_id`` as sampled, ``signal`` ``(B,)``.

        Signals are non-negative; one that is not finite is counted and ignored.
        """
        values = np.asarray(signal, np.float64)
        starts = row_id[:, 0] if row_id.ndim == 2 else row_id
        if values.shape != starts.shape:
            raise ReplayMismatch(f"There are {len(starts)} windows, but signals of shape {values.shape}.")
        good = np.isfinite(values) & (values >= 0)
        with self.lock:
            self.counters["signals_ignored"] += int(len(good) - good.sum())
            self.selector.prioritise(starts[good], values[good])

    # ------------------------------------------------------------------------------------------------ state and stats

    def save(self, directory: Path | str) -> None:
        """Write everything into ``directory``, copying only what changed since the last save.

        Unchanged chunks become hard links to the files they lie in or to the last save (which may have been renamed
        or deleted since). The index comes last: a save that was cut short has none. Raises ``OSError``.
        """
        with self.lock:
            snapshot.save(self, Path(directory))

    def load(self, directory: Path | str) -> None:
        """Replace everything by what `save` wrote; sampling goes on bit for bit.

        A damaged chunk is set aside and counted, and the rest goes on without it. Raises ``FileNotFoundError`` for a
        save that was cut short, `ReplayMismatch` if it holds other rows or windows than this replay.
        """
        with self.lock:
            snapshot.load(self, Path(directory))

    def absorb(self, directory: Path | str, part: int = 0, parts: int = 1) -> int:
        """Add the rows of another replay's save or live directory, for use on another number of shards.

        Of ``parts`` replays that absorb the same directory, number ``part`` takes its share of the streams. Nothing
        joins them to this replay's own streams, and they do not count as fresh. Returns the rows added.
        """
        with self.lock:
            return snapshot.absorb(self, Path(directory), part, parts)

    def close(self) -> None:
        """Let go of the directory, so that another process can open it; the replay is empty afterwards."""
        with self.lock:
            self.clear()
            if self.directory is not None:
                self.directory.release()
                self.directory = None

    def stats(self) -> dict[str, float]:
        """Sizes and counts since the beginning; bytes of rows are those of one row, latents spread over the stride."""
        with self.lock:
            sizes = row_bytes(self.schema)
            allocated = sum(chunk.nbytes for chunk in self.chunks.values())
            return {
                "rows": self.rows,
                "streams": len(self.streams),
                "chunks": len(self.chunks),
                "windows": self.windows.total,
                "online_queue": len(self.queue),
                "memory_bytes": 0 if self.directory else allocated,
                "disk_bytes": allocated if self.directory else 0,
                **{f"row_bytes_{kind}": size for kind, size in sizes.items()},
                "row_bytes": sum(sizes.values()),
                **self.counters,
            }

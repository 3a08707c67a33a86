"""A replay's whole state: saved incrementally, restored exactly, recovered from chunks alone, or merged into another.

A save is a folder: the chunks' files (hard links wherever nothing changed), ``selectors.npz``, and ``replay.json``,
written last, which holds everything else and the checksums that the rest must have.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from oneiros.platform.replay.blocks import Array, CorruptChunk, allocate
from oneiros.platform.replay.chunks import (
    JOINS,
    VALID,
    Chunk,
    ReplayMismatch,
    Schema,
    chunk_numbers,
    latents_check,
    latents_name,
    open_chunk,
    quarantine,
    rows_name,
)
from oneiros.platform.replay.windows import OFFSET_MASK, SHIFT, Span

if TYPE_CHECKING:
    from oneiros.platform.replay.buffer import Replay
    from oneiros.platform.replay.directory import Directory

logger = logging.getLogger(__name__)

INDEX = "replay.json"
SELECTORS = "selectors.npz"
FORMAT = 1
Index = dict[str, Any]


class SavedState:
    """The folder of the last save, kept open: it is found again even after it was renamed."""

    def __init__(self, directory: Path | None = None) -> None:
        self.descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC) if directory is not None else None

    def __del__(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


# ------------------------------------------------------------------------------------------------------------- saving


def save(replay: Replay, directory: Path) -> None:
    """See `Replay.save`."""
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        # Writing over a file here could write into another save, or into the living replay: they share files.
        raise FileExistsError(f"{directory} is not empty: a replay is saved into an empty directory.")
    changed = [directory / SELECTORS]
    for chunk in replay.chunks.values():
        changed += _save_rows(replay, chunk, directory / rows_name(chunk.id))
        changed += _save_latents(replay, chunk, directory / latents_name(chunk.id))
    with open(directory / SELECTORS, "wb") as selectors:
        np.savez(selectors, allow_pickle=False, **replay.selector.state_dict())
    # File systems commit many waiting files at once: one after the other would take many times as long.
    with ThreadPoolExecutor(16, "replay-sync") as pool:
        list(pool.map(_sync, changed))
    state = json.dumps(_index(replay))
    fresh = directory / (INDEX + ".new")
    fresh.write_text(json.dumps({"crc": zlib.crc32(state.encode()), "state": state}))
    _sync(fresh)
    fresh.rename(directory / INDEX)
    _sync(directory)
    replay.saved = SavedState(directory)
    for chunk in replay.chunks.values():
        _mark_saved(chunk)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mark_saved(chunk: Chunk) -> None:
    chunk.saved_count, chunk.saved_version = chunk.count, chunk.latents_version


def _save_rows(replay: Replay, chunk: Chunk, target: Path) -> list[Path]:
    if chunk.saved_count == chunk.count and _link(replay.saved, target):
        return []
    if chunk.rows.path is None:
        chunk.rows.commit(chunk.count, chunk.last_clock)
        chunk.rows.write(target, chunk.count)
        return [target]
    try:
        os.link(chunk.rows.path, target)
    except OSError:
        # Another file system, or one without links: a copy serves as well.
        chunk.rows.write(target, chunk.count)
    return [target]


def _save_latents(replay: Replay, chunk: Chunk, target: Path) -> list[Path]:
    if chunk.latents is None:
        return []
    if chunk.saved_version == chunk.latents_version and _link(replay.saved, target):
        return []
    chunk.saved_check = latents_check(chunk)
    chunk.latents.write(target, chunk.slots)
    return [target]


def _link(saved: SavedState, target: Path) -> bool:
    if saved.descriptor is None:
        return False
    try:
        os.link(target.name, target, src_dir_fd=saved.descriptor)
    except OSError:
        return False
    return True


def _index(replay: Replay) -> Index:
    spans = [span for span in replay.windows.spans if span is not None]
    clocks = replay.windows.clocks
    return {
        "format": FORMAT,
        "rows": replay.schema.rows,
        "latents": replay.schema.latents,
        "stride": replay.schema.stride,
        "length": replay.length,
        "context": replay.context,
        "next_chunk": replay.next_chunk,
        "clock": replay.clock,
        "counters": replay.counters,
        "generator": replay.generator.bit_generator.state,
        "chunks": [
            {
                "id": chunk.id,
                "stream": chunk.stream,
                "previous": chunk.previous,
                "size": chunk.size,
                "count": chunk.count,
                "clocks": [chunk.first_clock, chunk.last_clock],
                "checks": list(chunk.rows.extend_checks(chunk.count)),
                "latents_check": chunk.saved_check,
            }
            for chunk in replay.chunks.values()
        ],
        "slots": len(replay.windows.spans),
        "spans": [
            [
                *(span.slot, span.chunk, span.first, span.stop),
                span.next.slot if span.next else -1,
                *clocks[span.slot].tolist(),
            ]
            for span in spans
        ],
        "streams": [
            [name, state.chunk.id, state.span.slot, state.last, state.pending] for name, state in replay.streams.items()
        ],
        "queue": replay.queue.state(),
    }


# ------------------------------------------------------------------------------------------------------------ loading


def load(replay: Replay, directory: Path) -> None:
    """See `Replay.load`."""
    index = read_index(directory)
    _check_fit(replay, index)
    opened: dict[int, Chunk] = {}
    growing = {number for _, number, *_ in index["streams"]}
    replay.empty()
    quarantined = latents_lost = 0
    for entry in index["chunks"]:
        number = entry["id"]
        try:
            source = directory
            if replay.directory is not None:
                source = replay.directory.path
                _bring(directory, source, number, append=number in growing and entry["count"] < entry["size"])
            chunk, usable = open_chunk(
                replay.schema,
                source,
                number,
                mapped=replay.directory is not None,
                count=entry["count"],
                checks=entry["checks"],
                latents_crc=entry["latents_check"],
            )
        except (CorruptChunk, FileNotFoundError) as error:
            quarantined += 1
            quarantine(replay.directory.path if replay.directory else None, number, error)
            continue
        latents_lost += not usable
        chunk.saved_check = entry["latents_check"]
        _mark_saved(chunk)
        if not usable:
            chunk.latents_version += 1
        opened[number] = chunk
    _restore(replay, index, opened, _read_selectors(directory))
    replay.counters["quarantined"] += quarantined
    replay.counters["latents_lost"] += latents_lost
    replay.saved = SavedState(directory)


def read_index(directory: Path) -> Index:
    """The index of what `save` wrote; raises ``FileNotFoundError``, `CorruptChunk` or `ReplayMismatch`."""
    path = directory / INDEX
    try:
        outer = json.loads(path.read_text())
        if zlib.crc32(outer["state"].encode()) != outer["crc"]:
            raise CorruptChunk(f"{path} is damaged: its checksum does not fit.")
        index: Index = json.loads(outer["state"])
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} holds no whole replay: {INDEX} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise CorruptChunk(f"{path} is damaged: it is no replay index.") from None
    if index["format"] != FORMAT:
        raise ReplayMismatch(f"{path} has the format {index['format']}; this version reads format {FORMAT}.")
    return index


def _check_fit(replay: Replay, index: Index) -> None:
    columns = [[(name, dtype, tuple(shape)) for name, dtype, shape in index[kind]] for kind in ("rows", "latents")]
    different = replay.schema.difference(Schema(tuple(columns[0]), tuple(columns[1]), index["stride"]))
    if different:
        raise ReplayMismatch(f"The saved replay holds other rows: {different}.")
    for name, here in [
        ("length", replay.length),
        ("context", replay.context),
        ("stride", replay.schema.stride),
    ]:
        if index[name] != here:
            raise ReplayMismatch(f"The saved replay has {name} {index[name]}, this one {here}; only equal ones fit.")


def _bring(source: Path, target: Path, number: int, *, append: bool) -> None:
    # What will be written to must not share its bytes with the save: rows still to grow, and latents.
    rows, latents = rows_name(number), latents_name(number)
    if append:
        _copy(source / rows, target / rows)
    else:
        try:
            os.link(source / rows, target / rows)
        except FileNotFoundError:
            raise
        except OSError:
            _copy(source / rows, target / rows)
    if (source / latents).exists():
        _copy(source / latents, target / latents)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as old, open(target, "w+b") as new:
        allocate(new.fileno(), os.fstat(old.fileno()).st_size)
        shutil.copyfileobj(old, new, 1 << 20)


def _read_selectors(directory: Path) -> dict[str, Array]:
    try:
        with np.load(directory / SELECTORS, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("Replay starts its priorities anew: %s in the save is unreadable (%s).", SELECTORS, error)
        return {}


def _restore(replay: Replay, index: Index, chunks: Mapping[int, Chunk], selectors: Mapping[str, Array]) -> None:
    from oneiros.platform.replay.buffer import Stream

    for entry in index["chunks"]:
        chunk = chunks.get(entry["id"])
        if chunk is not None:
            chunk.first_clock, chunk.last_clock = entry["clocks"]
            chunk.previous = entry["previous"]
            replay.chunks[chunk.id] = chunk
            replay.rows += chunk.count
    spans: dict[int, Span] = {}
    for slot, number, first, stop, _, born, clock in index["spans"]:
        if number in chunks:
            spans[slot] = replay.windows.open(number, first, born, slot=slot)
            spans[slot].stop = stop
            replay.windows.clocks[slot, 1] = clock
    for slot, _, _, _, following, *_ in index["spans"]:
        if slot in spans and following in spans:
            before, after = spans[slot], spans[following]
            before.next, after.previous = after, before
            chunks[before.chunk].next = chunks[after.chunk]
    replay.windows.recount(index["slots"])
    for name, number, slot, last, pending in index["streams"]:
        if number in chunks:
            replay.streams[name] = Stream(chunks[number], spans[slot], last, pending)
    replay.queue.push(start for start in index["queue"] if replay.windows.contains(start >> SHIFT, start & OFFSET_MASK))
    replay.selector.grew(replay.windows.grown())
    replay.selector.load_state_dict(selectors)
    replay.next_chunk, replay.clock = index["next_chunk"], index["clock"]
    replay.counters.update(index["counters"])
    replay.generator.bit_generator.state = index["generator"]
    replay.shrink()


# --------------------------------------------------------------------------------------------- chunks without an index


def recover(replay: Replay, directory: Directory) -> None:
    """Take over all chunks that a former process left in ``directory``; nothing joins their streams any more."""
    directory.clean()
    for number in chunk_numbers(directory.path):
        replay.next_chunk = number + 1
        try:
            chunk, usable = open_chunk(replay.schema, directory.path, number, mapped=True)
        except CorruptChunk as error:
            replay.counters["quarantined"] += 1
            quarantine(directory.path, number, error)
            continue
        if chunk.count == 0:
            for path in chunk.files():
                path.unlink()
            continue
        replay.counters["latents_lost"] += not usable
        replay.counters["recovered"] += chunk.count
        _link_up(replay, chunk)
    replay.windows.recount(len(replay.windows.spans))
    replay.selector.grew(replay.windows.grown())
    replay.shrink()


def _link_up(replay: Replay, chunk: Chunk) -> None:
    replay.chunks[chunk.id] = chunk
    replay.rows += chunk.count
    replay.clock = max(replay.clock, chunk.last_clock)
    joins = chunk.rows.columns[JOINS][: chunk.count]
    before = replay.chunks.get(chunk.previous)
    if not joins[0] or before is None or before.room or before.stream != chunk.stream:
        before = None
    edges = [0, *(np.flatnonzero(~joins[1:]) + 1).tolist(), chunk.count]
    for first, stop in pairwise(edges):
        follows = replay.windows.of_chunk(before.id)[-1] if before is not None and first == 0 else None
        span = replay.windows.open(chunk.id, first, chunk.first_clock, follows)
        span.stop = stop
        replay.windows.clocks[span.slot, 1] = chunk.last_clock
    if before is not None:
        before.next = chunk


def absorb(replay: Replay, directory: Path, part: int, parts: int) -> int:
    """See `Replay.absorb`."""
    entries: dict[int, Index] = {}
    if (directory / INDEX).exists():
        entries = {entry["id"]: entry for entry in read_index(directory)["chunks"]}
    names: dict[int, int] = {}
    ends: dict[int, int] = {}
    before = replay.counters["inserted"]
    lowest = min([0, *(chunk.stream for chunk in replay.chunks.values())])
    for number in list(entries) or list(chunk_numbers(directory)):
        entry = entries.get(number, {})
        try:
            chunk, usable = open_chunk(
                replay.schema,
                directory,
                number,
                mapped=False,
                count=entry.get("count"),
                checks=entry.get("checks"),
                latents_crc=entry.get("latents_check"),
            )
        except (CorruptChunk, FileNotFoundError) as error:
            replay.counters["quarantined"] += 1
            quarantine(None, number, error)
            continue
        name = names.setdefault(chunk.stream, lowest - 1 - len(names))
        if chunk.count == 0 or (lowest - 1 - name) % parts != part:
            continue
        replay.counters["latents_lost"] += not usable
        joins = chunk.rows.columns[JOINS][: chunk.count].copy()
        joins[0] = joins[0] and ends.get(name) == chunk.previous
        ends[name] = chunk.id
        rows = {key: column[: chunk.count] for key, column in chunk.rows.columns.items() if key != JOINS}
        valid = None
        if chunk.latents is not None:
            stored = chunk.latents.columns
            valid = np.zeros(chunk.count, bool)
            valid[:: chunk.stride] = stored[VALID][: chunk.slots]
            for key, column in stored.items():
                if key != VALID:
                    rows[key] = np.repeat(column[: chunk.slots], chunk.stride, axis=0)[: chunk.count]
        born, replay.clock = replay.clock, replay.clock + chunk.count
        replay.append(name, rows, joins, valid, False, born, fresh=False)
    for name in names.values():
        replay.streams.pop(name, None)
    return replay.counters["inserted"] - before

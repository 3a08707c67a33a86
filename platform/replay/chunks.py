"""Chunks: a fixed number of rows of one stream, in memory or in two mapped files.

``chunk-00000042.rows`` is append-only: observations, actions, rewards, flags, and ``joins`` (whether a row continues
the one before it). ``chunk-00000042.latents`` is rewritten as the model improves; it has one slot for every
``stride``-th row, and a byte that says whether the slot was ever filled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from oneiros.platform.replay.blocks import Array, Block, Columns, CorruptChunk, Header

logger = logging.getLogger(__name__)

JOINS = "joins"
VALID = "valid"
FLAG = (np.dtype(bool).str, ())


class ReplayMismatch(ValueError):
    """Rows, or a stored replay, do not fit this replay; the message names the first entry that differs."""


@dataclass(frozen=True)
class Schema:
    """The columns of a row and of its latents; ``stride``: latents are kept for every ``stride``-th row."""

    rows: Columns
    latents: Columns
    stride: int

    @property
    def stored_rows(self) -> Columns:
        """Columns of a rows file."""
        return (*self.rows, (JOINS, *FLAG))

    @property
    def stored_latents(self) -> Columns:
        """Columns of a latents file."""
        return (*self.latents, (VALID, *FLAG)) if self.latents else ()

    def difference(self, other: Schema) -> str | None:
        """The first way in which ``other``'s rows differ from these, as half a sentence; None if they agree."""
        return _difference(self.rows, other.rows) or _difference(self.latents, other.latents)


def _difference(ours: Columns, theirs: Columns) -> str | None:
    mine, other = ({name: (dtype, shape) for name, dtype, shape in columns} for columns in (ours, theirs))
    for name in sorted(mine.keys() | other.keys()):
        if name not in other:
            return f"{name!r} is missing there"
        if name not in mine:
            return f"{name!r} is unknown here"
        if mine[name] != other[name]:
            return f"{name!r} is {other[name][0]} {other[name][1]} there and {mine[name][0]} {mine[name][1]} here"
    return None


@dataclass(eq=False)
class Chunk:
    """Up to ``rows`` rows of one stream, in order; ``previous`` is the chunk that its first row continues, or -1."""

    id: int
    stream: int
    previous: int
    rows: Block
    latents: Block | None
    stride: int
    count: int = 0
    first_clock: int = 0
    last_clock: int = 0
    next: Chunk | None = None
    latents_version: int = 0
    saved_count: int = -1
    saved_version: int = -1
    saved_check: int = 0

    @property
    def size(self) -> int:
        """Rows that fit."""
        return self.rows.header.rows

    @property
    def room(self) -> int:
        """Rows that still fit."""
        return self.size - self.count

    @property
    def slots(self) -> int:
        """Latent slots that belong to the rows there."""
        return -(-self.count // self.stride)

    @property
    def nbytes(self) -> int:
        """Bytes of both blocks."""
        return self.rows.data.nbytes + (self.latents.data.nbytes if self.latents else 0)

    def append(self, rows: Mapping[str, Array], part: slice, joins: Array, valid: Array | None, clock: int) -> None:
        """Append ``rows[key][part]`` for every column; ``joins`` ``(T,)`` bool, ``clock`` counts rows of the replay.

        ``valid`` ``(T,)`` bool says which rows bring latents, None that none does (``rows`` then needs no latents).
        """
        start = self.count
        stop = start + len(joins)
        columns = self.rows.columns
        for name, column in columns.items():
            if name != JOINS:
                column[start:stop] = rows[name][part]
        columns[JOINS][start:stop] = joins
        if self.latents is not None and valid is not None:
            skip = -start % self.stride
            slots = slice((start + skip) // self.stride, -(-stop // self.stride))
            for name, column in self.latents.columns.items():
                column[slots] = (valid if name == VALID else rows[name][part])[skip :: self.stride]
            self.latents_version += 1
        self.count = stop
        self.last_clock = clock
        if self.rows.path is not None:
            self.rows.commit(stop, clock)

    def write_latents(self, offset: int, values: Mapping[str, Array]) -> None:
        """Replace the latents of the rows from ``offset`` on by ``values`` ``(T, ...)``; keeps every stride-th."""
        if self.latents is None:
            return
        first = next(iter(values.values()))
        skip = -offset % self.stride
        start = (offset + skip) // self.stride
        slots = slice(start, max(start, -(-(offset + len(first)) // self.stride)))
        for name, column in self.latents.columns.items():
            if name == VALID:
                column[slots] = True
            else:
                column[slots] = values[name][skip :: self.stride]
        self.latents_version += 1

    def files(self) -> list[Path]:
        """The mapped files behind this chunk."""
        return [block.path for block in (self.rows, self.latents) if block is not None and block.path is not None]


def rows_name(number: int) -> str:
    """File name of a chunk's rows."""
    return f"chunk-{number:08d}.rows"


def latents_name(number: int) -> str:
    """File name of a chunk's latents."""
    return f"chunk-{number:08d}.latents"


def create_chunk(
    schema: Schema, directory: Path | None, number: int, stream: int, previous: int, rows: int, clock: int
) -> Chunk:
    """An empty chunk; raises ``OSError`` (``ENOSPC``) and leaves nothing behind if the disk has no room for it."""
    about = {"id": number, "stream": stream, "previous": previous, "stride": schema.stride, "clock": clock}
    latents = None
    if schema.latents:
        header = Header(schema.stored_latents, -(-rows // schema.stride), about)
        latents = Block.create(header, directory / latents_name(number) if directory else None)
    try:
        header = Header(schema.stored_rows, rows, about)
        block = Block.create(header, directory / rows_name(number) if directory else None)
    except OSError:
        if latents is not None and latents.path is not None:
            latents.path.unlink(missing_ok=True)
        raise
    return Chunk(number, stream, previous, block, latents, schema.stride, 0, clock, clock)


def open_chunk(
    schema: Schema,
    directory: Path,
    number: int,
    *,
    mapped: bool,
    count: int | None = None,
    checks: list[int] | None = None,
    latents_crc: int | None = None,
) -> tuple[Chunk, bool]:
    """A chunk from its files in ``directory``, verified; and whether its latents were there and usable.

    ``count`` and ``checks`` are a checkpoint's word on the rows (a file may have grown since), without them the
    file's own journal decides. Latents that are missing, of another model, or whose CRC is not ``latents_crc``
    are replaced by empty ones. Raises `CorruptChunk` naming the rows file, `ReplayMismatch` if it holds other rows,
    ``FileNotFoundError`` without one.
    """
    rows, journal = Block.open(directory / rows_name(number), mapped=mapped)
    theirs = Schema(tuple(column for column in rows.header.columns if column[0] != JOINS), (), 1)
    different = Schema(schema.rows, (), 1).difference(theirs)
    if different:
        raise ReplayMismatch(f"{rows.source} holds other rows than this replay: {different}.")
    count = journal.count if count is None else count
    if count > rows.header.rows:
        raise CorruptChunk(f"{rows.source} has room for {rows.header.rows} rows, not for {count}.")
    rows.verify(count, list(journal.checks) if checks is None else checks)
    about = rows.header.about
    chunk = Chunk(number, about["stream"], about["previous"], rows, None, schema.stride, count)
    chunk.first_clock, chunk.last_clock = about["clock"], journal.clock
    if mapped and count != journal.count:
        rows.commit(count, journal.clock)
    usable = True
    if schema.latents:
        latents = _open_latents(schema, directory, chunk, mapped, latents_crc)
        usable = latents is not None
        if latents is None:
            header = Header(schema.stored_latents, -(-chunk.size // schema.stride), {**about, "stride": schema.stride})
            latents = Block.create(header, directory / latents_name(number) if mapped else None)
        chunk.latents = latents
    return chunk, usable


def _open_latents(schema: Schema, directory: Path, chunk: Chunk, mapped: bool, check: int | None) -> Block | None:
    path = directory / latents_name(chunk.id)
    if not path.exists():
        return None
    try:
        latents, _ = Block.open(path, mapped=mapped)
    except CorruptChunk as error:
        logger.warning("Replay starts the latents of a chunk anew: %s", error)
        return None
    header = latents.header
    if header.columns != schema.stored_latents or header.about["stride"] != schema.stride:
        logger.warning("Replay starts %s anew: it holds latents of another kind.", path)
        return None
    latents.extend_checks(chunk.slots if check is not None else 0)
    if check is not None and combined(latents.checks) != check:
        logger.warning("Replay starts %s anew: its checksum does not fit.", path)
        return None
    return latents


def latents_check(chunk: Chunk) -> int:
    """One CRC-32 over all latents there now; 0 without latents."""
    if chunk.latents is None:
        return 0
    chunk.latents.checked, chunk.latents.checks = 0, [0] * len(chunk.latents.columns)
    return combined(chunk.latents.extend_checks(chunk.slots))


def combined(checks: list[int]) -> int:
    """One number from several checksums."""
    total = 0
    for check in checks:
        total = (total * 31 + check) & 0xFFFFFFFF
    return total


def chunk_numbers(directory: Path) -> Iterator[int]:
    """Numbers of the chunks that have a rows file in ``directory``, in order of creation."""
    return iter(sorted(int(path.stem.removeprefix("chunk-")) for path in directory.glob("chunk-*.rows")))


def quarantine(directory: Path | None, number: int, error: Exception) -> None:
    """Say in the log that a chunk is left out, and set its files in ``directory`` aside as ``*.corrupt``."""
    logger.warning("Replay goes on without a chunk: %s", error)
    if directory is None:
        return
    for path in (directory / rows_name(number), directory / latents_name(number)):
        if path.exists():
            path.rename(path.with_name(path.name + ".corrupt"))

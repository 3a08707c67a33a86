"""One block of bytes, in memory or a mapped file: a header, a journal, then one contiguous array per column.

The same bytes serve three purposes: memory of a running replay, a file that survives ``kill -9``, and a file in a
checkpoint. Numbers are little-endian; nothing is pickled::

    magic | header length, header CRC | JSON header | journal slot 0 | journal slot 1 | column | column | ...

The journal says how many leading rows are there, and the CRC-32 of each column over these rows. It has two slots,
written in turn, each with a sequence number and a CRC of its own: a slot torn by a crash is ignored in favour of the
other one, so a row is either wholly visible or not at all.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Columns = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, little-endian dtype string, shape of one row; in file order."""

MAGIC = b"oneiros1"
PREFIX = struct.Struct("<8sII")
JOURNAL = struct.Struct("<QQQ")
CHECK = struct.Struct("<I")
PAGE = 4096
ALIGN = 64


class CorruptChunk(ValueError):
    """A stored block is truncated, damaged or of another format; the message names the file and what is wrong."""


def columns_of(fields: Mapping[str, Any]) -> Columns:
    """The columns of ``fields`` (entries with ``shape`` and ``dtype``), sorted by name.

    Raises ``ValueError`` for a dtype whose bytes alone do not mean anything (objects, structures, dates).
    """
    columns = []
    for name in sorted(fields):
        dtype = np.dtype(fields[name].dtype)
        if dtype.kind not in "biuf":
            raise ValueError(f"Field {name!r} has dtype {dtype}; replay stores bool, integer and float fields.")
        columns.append((name, dtype.newbyteorder("<").str, tuple(int(size) for size in fields[name].shape)))
    return tuple(columns)


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


@dataclass(frozen=True)
class Journal:
    """What a journal slot says: rows there, the clock of the last of them, the CRC-32 of each column."""

    sequence: int
    count: int
    clock: int
    checks: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a block holds and where; ``about`` is the owner's own JSON."""

    columns: Columns
    rows: int
    about: Mapping[str, int]

    @cached_property
    def encoded(self) -> bytes:
        """The JSON that a file carries."""
        return json.dumps({"columns": self.columns, "rows": self.rows, "about": dict(self.about)}).encode()

    @property
    def slot_size(self) -> int:
        """Bytes from one journal slot to the next."""
        return _up(JOURNAL.size + CHECK.size * (len(self.columns) + 1), ALIGN)

    @property
    def journal_offset(self) -> int:
        """Where the first journal slot lies."""
        return _up(PREFIX.size + len(self.encoded), ALIGN)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each column begins; one more entry for the end of the block."""
        offsets = [_up(self.journal_offset + 2 * self.slot_size, PAGE)]
        for _, dtype, shape in self.columns:
            row = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            offsets.append(_up(offsets[-1] + self.rows * row, ALIGN))
        return tuple(offsets)

    @classmethod
    def decode(cls, data: bytes, source: str) -> Header:
        """Read the header at the beginning of ``data``; raises `CorruptChunk` naming ``source``."""
        if len(data) < PREFIX.size:
            raise CorruptChunk(f"{source} is truncated: {len(data)} bytes are too few for a header.")
        magic, length, check = PREFIX.unpack_from(data)
        if magic != MAGIC:
            raise CorruptChunk(f"{source} does not begin with {MAGIC!r}: it is no replay chunk of this format.")
        encoded = data[PREFIX.size : PREFIX.size + length]
        if len(encoded) < length or zlib.crc32(encoded) != check:
            raise CorruptChunk(f"{source} has a damaged header: its checksum does not fit.")
        fields = json.loads(encoded)
        columns = tuple((name, dtype, tuple(shape)) for name, dtype, shape in fields["columns"])
        return cls(columns, fields["rows"], fields["about"])


class Block:
    """``rows`` rows of some columns, as arrays ``(rows, ...)`` that share the block's memory.

    ``path`` is None for a block in memory. Appending is the owner's business: write into ``columns``, then `commit`.
    """

    def __init__(self, header: Header, data: Array, path: Path | None, mapping: mmap.mmap | None) -> None:
        self.header = header
        self.data = data
        self.path = path
        self.source = str(path)
        self.checked = 0
        self.checks = [0] * len(header.columns)
        self._mapping = mapping
        self._sequence = 0
        self.columns: dict[str, Array] = {}
        for (name, dtype, shape), offset in zip(header.columns, header.offsets, strict=False):
            count = header.rows * int(np.prod(shape, dtype=np.int64))
            flat = np.frombuffer(data.data, dtype=dtype, count=count, offset=offset)
            self.columns[name] = flat.reshape(header.rows, *shape)

    @classmethod
    def create(cls, header: Header, path: Path | None) -> Block:
        """An empty block; a file appears under its name only once its header is whole.

        Raises ``OSError`` (``ENOSPC``) if the disk has no room for all of it: what is later written cannot fail.
        """
        size = header.offsets[-1]
        if path is None:
            block = cls(header, np.zeros(size, np.uint8), None, None)
            block._write_header()
            return block
        fresh = path.with_name(path.name + ".new")
        try:
            with open(fresh, "w+b") as file:
                allocate(file.fileno(), size)
                mapping = _map(file.fileno(), size)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        block = cls(header, np.frombuffer(mapping, np.uint8), path, mapping)
        block._write_header()
        os.replace(fresh, path)
        return block

    @classmethod
    def open(cls, path: Path, *, mapped: bool) -> tuple[Block, Journal]:
        """A block from its file, mapped or read into memory, and its newest intact journal slot.

        The columns' checksums are not compared here (see `verify`). Raises `CorruptChunk` naming the file.
        """
        with open(path, "rb" if not mapped else "r+b") as file:
            header = Header.decode(file.read(PAGE * 16), str(path))
            actual, size = os.fstat(file.fileno()).st_size, header.offsets[-1]
            if actual != size:
                raise CorruptChunk(f"{path} is truncated: {actual} of {size} bytes are there.")
            if mapped:
                mapping = _map(file.fileno(), size)
                block = cls(header, np.frombuffer(mapping, np.uint8), path, mapping)
            else:
                file.seek(0)
                data = np.fromfile(file, np.uint8, size)
                block = cls(header, data, None, None)
        journal = block._read_journal()
        if journal is None:
            raise CorruptChunk(f"{path} has no intact journal: it cannot be told how many rows are there.")
        block.source = str(path)
        block._sequence = journal.sequence
        return block, journal

    def verify(self, count: int, checks: tuple[int, ...] | list[int]) -> None:
        """Compare the checksums of the first ``count`` rows; raises `CorruptChunk` naming the first bad column."""
        self.checked, self.checks = 0, [0] * len(self.header.columns)
        self.extend_checks(count)
        for name, expected, actual in zip(self.columns, checks, self.checks, strict=True):
            if expected != actual:
                raise CorruptChunk(f"{self.source} has a damaged column {name!r}: its checksum does not fit.")

    def extend_checks(self, count: int) -> list[int]:
        """The CRC-32 of each column over the first ``count`` rows, reading only rows that are new since last time."""
        if count > self.checked:
            for index, column in enumerate(self.columns.values()):
                new = column[self.checked : count].reshape(-1).view(np.uint8)
                self.checks[index] = zlib.crc32(new.data, self.checks[index])
            self.checked = count
        return self.checks

    def commit(self, count: int, clock: int) -> None:
        """Make the first ``count`` rows visible to whoever opens the file after this process is gone."""
        self.extend_checks(count)
        self._sequence += 1
        body = JOURNAL.pack(self._sequence, count, clock) + struct.pack(f"<{len(self.checks)}I", *self.checks)
        offset = self.header.journal_offset + self.header.slot_size * (self._sequence % 2)
        slot = body + CHECK.pack(zlib.crc32(body))
        self.data[offset : offset + len(slot)] = np.frombuffer(slot, np.uint8)

    def write(self, path: Path, count: int) -> None:
        """Write the header, journal and first ``count`` rows to ``path``, a sparse file of full size."""
        with open(path, "wb") as file:
            file.truncate(self.header.offsets[-1])
            file.write(self.data[: self.header.offsets[0]].data)
            for column, offset in zip(self.columns.values(), self.header.offsets, strict=False):
                file.seek(offset)
                file.write(column[:count].reshape(-1).view(np.uint8).data)

    def _write_header(self) -> None:
        encoded = self.header.encoded
        data = PREFIX.pack(MAGIC, len(encoded), zlib.crc32(encoded)) + encoded
        self.data[: len(data)] = np.frombuffer(data, np.uint8)
        self.commit(0, 0)

    def _read_journal(self) -> Journal | None:
        checks, newest = len(self.header.columns), None
        for slot in range(2):
            offset = self.header.journal_offset + self.header.slot_size * slot
            length = JOURNAL.size + CHECK.size * checks
            body = self.data[offset : offset + length].tobytes()
            (check,) = CHECK.unpack(self.data[offset + length : offset + length + CHECK.size].tobytes())
            if zlib.crc32(body) != check:
                continue
            sequence, count, clock = JOURNAL.unpack_from(body)
            if count <= self.header.rows and (newest is None or sequence > newest.sequence):
                newest = Journal(sequence, count, clock, struct.unpack_from(f"<{checks}I", body, JOURNAL.size))
        return newest


def allocate(descriptor: int, size: int) -> None:
    """Reserve ``size`` bytes of an open file; raises ``OSError`` (``ENOSPC``) if the disk lacks them."""
    # A hole in a mapped file kills the process (SIGBUS) when the disk is full; reserving first makes it an OSError.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for offset in range(0, size, 1 << 20):
        os.pwrite(descriptor, bytes(min(1 << 20, size - offset)), offset)


def _map(descriptor: int, size: int) -> mmap.mmap:
    # Until Python 3.13 a mapping keeps a file descriptor of its own.
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, trackfd=False)
    return mmap.mmap(descriptor, size)


def is_full(error: OSError) -> bool:
    """Whether ``error`` says that the disk, or this user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)

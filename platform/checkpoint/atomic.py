"""Directories that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oneiros.platform.checkpoint.errors import CheckpointWriteError

_MARK = ".partial-"


@contextmanager
def atomic_directory(final: Path) -> Iterator[Path]:
    """Yield a directory beside ``final`` to write into; it takes the name ``final`` when the block ends well.

    Every file and directory is flushed to the disk first, so a power cut leaves either the old ``final`` or the
    whole new one. If the block or the flushing fails, what was written is removed and ``final`` stays as it was;
    an ``OSError`` (a full disk) becomes ``CheckpointWriteError``.
    """
    partial = _beside(final)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise CheckpointWriteError(f"the checkpoint {final} could not be written: {error}") from error
    try:
        yield partial
        _flush(partial)
        _put_in_place(partial, final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointWriteError(f"the checkpoint {final} could not be written: {error}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partial(directory: Path) -> list[Path]:
    """Remove what dead processes of this host left half-written in ``directory``; returns what was removed."""
    removed = []
    for path in directory.glob(f".*{_MARK}*"):
        host, _, rest = path.name.partition(_MARK)[2].rpartition("-")[0].rpartition("-")
        if host == socket.gethostname() and rest.isdigit() and not _alive(int(rest)):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def remove_directory(directory: Path) -> None:
    """Remove ``directory``; a crash half-way leaves nothing that could be taken for it."""
    doomed = _beside(directory)
    directory.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _beside(final: Path) -> Path:
    return final.parent / f".{final.name}{_MARK}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _put_in_place(partial: Path, final: Path) -> None:
    """Rename over nothing or an empty directory; an older checkpoint of that name steps aside until it is done."""
    aside = None
    if final.exists() and any(final.iterdir()):
        aside = _beside(final)
        final.rename(aside)
    try:
        partial.rename(final)
    except OSError:
        if aside is not None:
            aside.rename(final)
        raise
    _sync(final.parent)
    if aside is not None:
        shutil.rmtree(aside)


def _flush(root: Path) -> None:
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

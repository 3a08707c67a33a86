"""The folder of one replay shard: locked by its process, with as many mapped files as a replay may need."""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import weakref
from pathlib import Path

OTHER_FILES = 1024
"""Open files left to everything but the replay."""

_held: dict[Path, int] = {}


class DirectoryInUse(RuntimeError):
    """Another replay, in this process or another one, has this directory."""


class Directory:
    """``path``, created if need be and held until `release`, or until this process ends in whatever way.

    Raises `DirectoryInUse`, or ``ValueError`` if this user may not open files enough for ``max_chunks`` chunks.
    """

    def __init__(self, path: Path, max_chunks: int) -> None:
        _allow_files(max_chunks)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path.resolve()
        if self.path in _held:
            raise DirectoryInUse(f"The replay directory {path} is in use by another replay of this process.")
        # A POSIX lock: unlike flock, it is not kept alive by environment processes that were forked from this one.
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise DirectoryInUse(f"The replay directory {path} is in use by another process.") from None
        _held[self.path] = descriptor
        self.release = weakref.finalize(self, _release, self.path)

    def clean(self) -> None:
        """Remove what a killed process left half made: unfinished files, and latents without rows."""
        for path in self.path.glob("chunk-*.new"):
            path.unlink()
        for path in self.path.glob("chunk-*.latents"):
            if not path.with_suffix(".rows").exists():
                path.unlink()

    def wipe(self) -> None:
        """Remove all chunks (a checkpoint's hard links to them stay)."""
        for pattern in ("chunk-*.rows", "chunk-*.latents", "chunk-*.new"):
            for path in self.path.glob(pattern):
                path.unlink()


def _release(path: Path) -> None:
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        os.close(descriptor)


def mappable_chunks() -> int:
    """How many chunks, of two mappings each, one process can have: Linux allows 65,530 mappings and fewer files."""
    most = 1 << 14
    # From Python 3.13 on a mapping needs no open file.
    if sys.version_info >= (3, 13):
        return most
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if hard == resource.RLIM_INFINITY else max(0, min(most, (hard - OTHER_FILES) // 2))


def _allow_files(chunks: int) -> None:
    if chunks > mappable_chunks():
        raise ValueError(
            f"Replay on disk may map {chunks} chunks, but this process only {mappable_chunks()}: "
            "raise chunk_rows or `ulimit -n`, or lower the capacity."
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * chunks + OTHER_FILES
    if sys.version_info < (3, 13) and soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

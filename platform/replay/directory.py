"""The folder of one replay shard: locked by its process, with as many mapped files as a replay may need."""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import weakref
from pathlib import Path

_held: dict[Path, int] = {}


class DirectoryInUse(RuntimeError):
    """Another replay, in this process or another one, has this directory."""


class Directory:
    """``path``, created if need be and held until `release`, or until this process ends in whatever way.

    Raises `DirectoryInUse`, or ``ValueError`` if this user may not open files enough for ``max_chunks`` chunks.
    """

    def __init__(self, path: Path, max_chunks: int) -> None:
        _allow_files(2 * max_chunks)
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


def _allow_files(count: int) -> None:
    # From Python 3.13 on a mapping needs no open file.
    if sys.version_info >= (3, 13):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 1024
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"Replay on disk may map {count} files, but this process may open only {hard}: "
            "raise chunk_rows or `ulimit -n`, or lower the capacity."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

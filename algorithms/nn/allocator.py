"""The C library's memory allocator, told to keep what an update frees for the next one."""

from __future__ import annotations

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = (1 << 31) - 1


@functools.lru_cache
def keep_freed_memory() -> bool:
    """Let freed blocks stay with this process, however large; returns whether the C library could be told (glibc).

    By default glibc gives large blocks back to the system when they are freed and asks for them again, zeroed page by
    page, an update later: some 6% of an update's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    told = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _NEVER)]
    return all(told)

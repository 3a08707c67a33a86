"""The C library's memory allocator, told to keep what an update frees for the next one."""

from __future__ import annotations

import ctypes
import functools

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = (1 << 31) - 1
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20
_RESERVED = 1 << 30
"""Bytes of addresses, not of memory: what is not used is not there."""


@functools.lru_cache
def keep_freed_memory() -> bool:
    """Let freed blocks stay with this process, however large; returns whether the C library could be told (glibc).

    By default glibc gives large blocks back to the system when they are freed and asks for them again, zeroed page by
    page, an update later: some 6% of an update's time. What is asked for from here on lies in pages of 2 MiB where the
    system has such: another 3%.
    """
    try:
        libc = ctypes.CDLL(None)
        told = [libc.mallopt(_M_MMAP_MAX, 0), libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)]
    except (OSError, AttributeError):
        return False
    if all(told):
        _reserve_huge_pages(libc)
    return all(told)


def _reserve_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap, ask for huge pages there, and leave it to be allocated from; nothing happens where this fails."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(_RESERVED)
    if block:
        start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(start, (block + _RESERVED - start) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
        libc.free(block)

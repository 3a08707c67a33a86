"""Freed memory stays with a process that learns. In a process of its own, for the allocator is all of a process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from oneiros.algorithms.nn.allocator import keep_freed_memory
if not keep_freed_memory():
    raise SystemExit(77)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = torch.ones(24_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults())
"""


def test_a_block_of_96_mb_is_paged_in_once() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    _, again = map(int, done.stdout.split())
    assert again < 1000, "23,438 pages of 4 KiB were asked for again"

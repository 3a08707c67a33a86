"""RLlib's seeding changes how PyTorch computes; this keeps it to itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_torch_flags() -> Iterator[None]:
    """Put back the flags that RLlib sets beside a seed.

    It asks PyTorch for deterministic algorithms only, which costs speed, and refuses some operations altogether.
    Agents here draw from generators of their own, which repeat without that.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn

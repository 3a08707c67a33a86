"""What a rollout hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Chunk:
    """``T`` consecutive rows of each of ``N`` environments; the rollout's next chunk goes on where it ends."""

    rows: dict[str, NDArray[Any]]
    """Each ``(N, T, ...)``, with the keys of ``oneiros.algorithms.contract``. Nothing else refers to these arrays."""
    streams: NDArray[np.int64]
    """``(N,)``: rows with the same number follow each other without a gap, within a chunk and from chunk to chunk."""
    env_steps: int
    """Policy steps executed: rows without ``is_last``."""
    policy_version: int
    """Version of the weights that acted."""

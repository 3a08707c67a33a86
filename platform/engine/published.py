"""Policy weights on their way from the learner to whoever acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True)
class Published:
    """Policy weights in the object store."""

    number: int
    """Counts what was published; it rises even where ``updates`` fell, after going back to a checkpoint."""
    updates: int
    """Updates that made them."""
    weights: ray.ObjectRef[Any]
    server: Any = None
    """The ``InferenceServer``'s handle, where env runners ask it for actions; None where they act themselves."""

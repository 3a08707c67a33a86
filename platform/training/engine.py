"""What trains, as the command line and notebooks see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.config import RunConfig
from oneiros.platform.rollout import EvaluationResult

Videos = dict[str, NDArray[np.uint8]]
"""By name, ``(T, height, width, 3)``."""


class Engine(Protocol):
    """Trains one agent in one environment; whoever drives it decides when to stop, save and evaluate.

    Metrics are flat. Counters: ``env_steps`` (policy steps), ``updates``, ``episodes``. Recent episodes: ``return``,
    ``length``. Speed: ``env_steps_per_s``, ``updates_per_s``. ``train_ratio`` is the actual one, ``policy_age`` the
    updates between the weights that acted and the newest. ``replay/...``, ``faults/...`` (counts since the beginning
    of the run), and the agent's own names, such as ``loss/...``.
    """

    @property
    def env_steps(self) -> int:
        """Policy steps taken so far, over all environments and all resumptions."""

    def step(self) -> dict[str, float]:
        """Train for about a second (in one process: for a fixed number of policy steps) and return metrics.

        Raises ``TrainingDiverged`` when gradients stay not finite; the engine can still be saved.
        """

    def hurry(self) -> None:
        """Have the ``step`` under way, and those to come, return as soon as may be: after an update; from a signal's
        handler too."""

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all; raises ``CheckpointWriteError``, an ``OSError``."""

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; raises ``CheckpointError``, a ``ValueError``, if it is damaged or does not fit."""

    def begin_from(self, checkpoint: Path, reset: Sequence[str]) -> None:
        """Take over what the agent in another run's checkpoint has learnt, but for the parts ``reset``.

        For a new engine. Raises ``CheckpointError``, and ``ConfigError`` for an unknown part.
        """

    def prefill(self, place: str) -> None:
        """Put the episodes of a data set into the replay of a new engine; raises ``DataError``."""

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Play whole episodes in environments of their own; training is the same afterwards."""

    def videos(self) -> Videos:
        """Return open-loop predictions beside what really happened."""

    def close(self) -> None:
        """End processes and threads, and close environments."""


def open_engine(config: RunConfig) -> Engine:
    """Build the engine that ``config.engine`` names, with new weights and an empty replay.

    Raises ``ConfigError``, the registry's errors and ``UnsupportedSpace``, all ``ValueError`` of one sentence.
    """
    if config.data.offline is not None:
        from oneiros.platform.training.offline import OfflineEngine

        return OfflineEngine(config)
    if config.engine == "local":
        from oneiros.platform.training.local import LocalEngine

        return LocalEngine(config)
    from oneiros.platform.engine.rllib_engine import RLlibEngine

    return RLlibEngine(config)

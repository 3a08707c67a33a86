"""What trains, as the command line and notebooks see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.config import RunConfig
from oneiros.platform.rollout import EvaluationResult as RolloutResult
from oneiros.platform.rollout.shares import intervals

Videos = dict[str, NDArray[np.uint8]]
"""By name, ``(T, height, width, 3)``."""


@dataclass(frozen=True)
class EvaluationResult:
    """How the policy did in whole episodes, with its best actions."""

    episodes: int
    return_mean: float
    return_std: float
    length_mean: float
    env_steps: int
    """Policy steps of training before the evaluation."""
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    faults: int = 0
    """Episodes that a fault of the environment cut short; they are not among ``episodes``."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """What the environment says of its episodes, and the policy of what it did in them; means over ``parts`` played."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Of what every episode says 0 or 1, such as whether a milestone was reached: in how many it was 1."""

    @classmethod
    def join(cls, parts: Sequence[RolloutResult], env_steps: int) -> EvaluationResult:
        """Join what was played, possibly in several processes; at least one episode in all."""
        returns = tuple(score for part in parts for score in part.returns)
        lengths = tuple(length for part in parts for length in part.lengths)
        return cls(
            episodes=len(returns),
            return_mean=float(np.mean(returns)),
            return_std=float(np.std(returns)),
            length_mean=float(np.mean(lengths)),
            env_steps=env_steps,
            returns=returns,
            lengths=lengths,
            faults=sum(part.faults for part in parts),
            extras=_means(parts),
            shares=_shares(parts),
        )

    @property
    def intervals(self) -> dict[str, list[float]]:
        """Wilson's 95% interval of each share, by name."""
        return intervals(self.shares, self.episodes)

    def metrics(self) -> dict[str, float]:
        """The numbers worth a curve; for each share also the ends of its interval, ``<name>_low`` and ``_high``."""
        ends = {
            f"{name}_{end}": value
            for name, interval in self.intervals.items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        own = {"return_mean": self.return_mean, "return_std": self.return_std, "length_mean": self.length_mean}
        return {**self.extras, **ends, **own}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        lists = {"returns": list(self.returns), "lengths": list(self.lengths)}
        values = asdict(self)
        del values["shares"]
        return {**values, **lists, "extras": dict(self.extras), "intervals": self.intervals}


def _means(parts: Sequence[RolloutResult]) -> dict[str, float]:
    """Means of the extras, weighed by episodes, over the parts that have them."""
    means = {}
    for key in sorted({key for part in parts for key in part.extras}):
        having = [part for part in parts if key in part.extras]
        means[key] = float(np.average([part.extras[key] for part in having], weights=[p.episodes for p in having]))
    return means


def _shares(parts: Sequence[RolloutResult]) -> dict[str, int]:
    """Sums of the shares' counts, of what all parts know."""
    known = set.intersection(*(set(part.shares) for part in parts))
    return {name: sum(part.shares[name] for part in parts) for name in sorted(known)}


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

"""What an evaluation has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.rollout.shares import intervals


@dataclass(frozen=True)
class EvaluationResult:
    """How a policy did in whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    extras: Mapping[str, float] = field(default_factory=dict)
    """Means of what the environment says of its episodes, and what the policy says of its rows (``Examines``); of parts
    that were joined, means over those that have them."""
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, compare=False)
    """What plots of the rows are drawn from (``Tabulates``); none of parts that were joined."""
    faults: int = 0
    """Episodes that a fault of the environment cut short; they are not among ``episodes``."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Of what every episode says 0 or 1, such as whether a milestone was reached: in how many it was 1."""
    env_steps: int | None = None
    """Policy steps of training before the evaluation, if whoever evaluated knows."""

    @classmethod
    def join(cls, parts: Sequence[EvaluationResult], env_steps: int) -> EvaluationResult:
        """Join what was played, possibly in several processes; at least one episode in all."""
        return cls(
            returns=tuple(score for part in parts for score in part.returns),
            lengths=tuple(length for part in parts for length in part.lengths),
            extras=_means(parts),
            faults=sum(part.faults for part in parts),
            shares=_shares(parts),
            env_steps=env_steps,
        )

    @property
    def episodes(self) -> int:
        """How many were played to their end."""
        return len(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean of the returns."""
        return float(np.mean(self.returns))

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))

    @property
    def length_mean(self) -> float:
        """Mean of the lengths."""
        return float(np.mean(self.lengths))

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
        return {**self.extras, **ends, **self._means()}

    def summary(self) -> dict[str, Any]:
        """Everything but the tables, as JSON holds it; ``intervals`` instead of the shares."""
        known = {} if self.env_steps is None else {"env_steps": self.env_steps}
        lists = {"returns": list(self.returns), "lengths": list(self.lengths)}
        rest = {"extras": dict(self.extras), "faults": self.faults, "intervals": self.intervals}
        return {"episodes": self.episodes, **self._means(), **known, **lists, **rest}

    def _means(self) -> dict[str, float]:
        return {"return_mean": self.return_mean, "return_std": self.return_std, "length_mean": self.length_mean}


def _means(parts: Sequence[EvaluationResult]) -> dict[str, float]:
    """Means of the extras, weighed by episodes, over the parts that have them."""
    means = {}
    for key in sorted({key for part in parts for key in part.extras}):
        having = [part for part in parts if key in part.extras]
        means[key] = float(np.average([part.extras[key] for part in having], weights=[p.episodes for p in having]))
    return means


def _shares(parts: Sequence[EvaluationResult]) -> dict[str, int]:
    """Sums of the shares' counts, of what all parts know."""
    known = set.intersection(*(set(part.shares) for part in parts))
    return {name: sum(part.shares[name] for part in parts) for name in sorted(known)}

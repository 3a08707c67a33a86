"""Episodes as they are counted while they are collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.envs.contract import EPISODE_FAULT

LOG_PREFIX = "log_"
"""Keys of ``info`` that begin so are reported with the episode, by their last value and without this prefix."""


@dataclass(frozen=True)
class Episode:
    """One finished episode."""

    score: float
    """Undiscounted sum of rewards."""
    length: int
    """Policy steps."""
    slot: int = 0
    """Which of the environments stepped together it happened in."""
    terminated: bool = True
    """Whether the environment ended it, and not time or a fault."""
    faulted: bool = False
    """Whether it was cut short by a fault of the environment."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """What the environment says of it, such as the achievements of a Crafter episode."""


class EpisodeTracker:
    """Sums of the ``N`` episodes under way."""

    def __init__(self, num_envs: int) -> None:
        self.scores: NDArray[np.float64] = np.zeros(num_envs)
        self.lengths: NDArray[np.int64] = np.zeros(num_envs, np.int64)

    def finish(
        self, slot: int, *, terminated: bool = False, faulted: bool = False, extras: Mapping[str, float] | None = None
    ) -> Episode:
        """Take the episode out of ``slot`` and begin to count the next."""
        episode = Episode(
            float(self.scores[slot]), int(self.lengths[slot]), slot, terminated, faulted, dict(extras or {})
        )
        self.scores[slot] = 0.0
        self.lengths[slot] = 0
        return episode


def episode_fault(infos: Mapping[str, Any], slot: int) -> str:
    """Why one environment's episode is none that counts, in its own words; empty where it counts."""
    if "each" in infos:
        return str(infos["each"][slot].get(EPISODE_FAULT, ""))
    return str(infos[EPISODE_FAULT][slot]) if EPISODE_FAULT in infos and infos[f"_{EPISODE_FAULT}"][slot] else ""


def extras(infos: Mapping[str, Any], slot: int) -> dict[str, float]:
    """The ``log_`` numbers of one environment, out of a vector environment's infos, Gymnasium's or ours."""
    if "each" in infos:
        return {
            key.removeprefix(LOG_PREFIX): float(value)
            for key, value in infos["each"][slot].items()
            if key.startswith(LOG_PREFIX)
        }
    return {
        key.removeprefix(LOG_PREFIX): float(values[slot])
        for key, values in infos.items()
        if key.startswith(LOG_PREFIX) and infos[f"_{key}"][slot]
    }

"""One recorded episode, in the environment's own units, and as rows of experience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.envs.spaces import ActionCodec, ObservationCodec

Array = NDArray[Any]


class DataError(ValueError):
    """A data set that cannot be used, or not for this; one sentence names the file, the entry and the reason."""


@dataclass(frozen=True)
class Episode:
    """``T`` steps: what was seen before each and after the last one, what was done, and what it paid."""

    observations: Any
    """``(T + 1, ...)`` in the structure of the environment's observation space."""
    actions: Any
    """``(T, ...)`` in the structure of its action space."""
    rewards: NDArray[np.float32]
    """``(T,)``: what each action paid."""
    terminated: bool
    """Whether the environment ended it; otherwise time ran out, or the record does."""

    @property
    def steps(self) -> int:
        """Policy steps."""
        return len(self.rewards)


def to_rows(episode: Episode, observations: ObservationCodec, actions: ActionCodec) -> dict[str, Array]:
    """The episode as rows ``(T + 1, ...)`` with the keys of ``oneiros.algorithms.contract``, without latents."""
    length = episode.steps + 1
    rows = {
        key: np.asarray(value).astype(observations.space[key].dtype, copy=False)
        for key, value in observations.flatten(episode.observations).items()
    }
    rows["reward"] = np.concatenate([np.zeros(1, np.float32), np.asarray(episode.rewards, np.float32)])
    for flag in ("is_first", "is_last", "is_terminal"):
        rows[flag] = np.zeros(length, bool)
    rows["is_first"][0] = rows["is_last"][-1] = True
    rows["is_terminal"][-1] = episode.terminated
    zeros = actions.zeros(1)
    for key, value in actions.flatten(episode.actions).items():
        rows[key] = np.concatenate([np.asarray(value).astype(zeros[key].dtype, copy=False), zeros[key]])
    return rows


def from_rows(rows: Mapping[str, Array], observations: ObservationCodec, actions: ActionCodec) -> Episode:
    """The episode of rows ``(T + 1, ...)``; its last row may be one that the episode goes on after."""
    executed, _ = actions.unflatten({key: rows[key][:-1] for key in actions.space})
    return Episode(
        observations.unflatten(rows),
        executed,
        np.asarray(rows["reward"][1:], np.float32),
        bool(rows["is_terminal"][-1]),
    )

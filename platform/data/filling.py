"""Recorded episodes into a replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.spaces import ActionCodec, ObservationCodec, flatten_action_space, flatten_observation_space
from oneiros.platform.checkpoint.spaces import describe, space_to_json
from oneiros.platform.data.data_set import DataSet
from oneiros.platform.data.episode import Array, DataError, Episode, to_rows
from oneiros.platform.replay import Replay

STREAM = -(1 << 40)
"""Of all recorded episodes, which follow one another in it; runners' streams count up from 0."""


class Filled(NamedTuple):
    """What was put in."""

    episodes: int
    steps: int


@dataclass(frozen=True)
class _Recorded:
    rows: dict[str, Array]
    streams: NDArray[np.int64]


def fill(replay: Replay, data: DataSet, *, part: int = 0, parts: int = 1) -> Filled:
    """Put the episodes of ``data`` into ``replay``, as experience that is not fresh and has no latents yet.

    Of ``parts`` replays that share a data set, number ``part`` takes its share of the episodes. Raises ``DataError``
    for episodes that the replay has no room for, or that do not fit it.
    """
    observations, actions = ObservationCodec(data.observation_space), ActionCodec(data.action_space)
    episodes = steps = 0
    for number, episode in enumerate(checked(data)):
        if number % parts != part:
            continue
        one = {key: value[None] for key, value in to_rows(episode, observations, actions).items()}
        replay.add(_Recorded(one, np.array([STREAM], np.int64)), fresh=False)
        episodes, steps = episodes + 1, steps + episode.steps
        if replay.counters["evicted"]:
            raise DataError(
                f"{data.place} does not fit into the replay's {replay.capacity:,} rows; set replay.capacity higher"
            )
    replay.end_streams(np.array([STREAM], np.int64))
    return Filled(episodes, steps)


def checked(data: DataSet) -> Iterator[Episode]:
    """The episodes of ``data``, each tried against its spaces; raises ``DataError`` naming the first that does not fit.

    Values that are not finite would poison what learns from them, and actions that are none cannot have been taken.
    """
    observations, actions = ObservationCodec(data.observation_space), ActionCodec(data.action_space)
    for number, episode in enumerate(data.episodes()):
        try:
            rows = to_rows(episode, observations, actions)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(f"episode {number} of {data.place} does not fit its spaces: {error!r}") from error
        for key, value in rows.items():
            space = observations.space.get(key, actions.space.get(key))
            if space is not None and value.shape != (episode.steps + 1, *(space.shape or ())):
                raise DataError(
                    f"episode {number} of {data.place} has {key!r} of the shape {value.shape}; "
                    f"{episode.steps} steps need {(episode.steps + 1, *(space.shape or ()))}"
                )
            if not np.isfinite(value).all():
                raise DataError(f"episode {number} of {data.place} has a value of {key!r} that is not finite")
            if _outside(space, value):
                raise DataError(f"episode {number} of {data.place} has a value of {key!r} that is not in its space")
        yield episode


def _outside(space: spaces.Space[Any] | None, value: Array) -> bool:
    if isinstance(space, spaces.Discrete):
        return bool((value < 0).any() or (value >= space.n).any())
    if isinstance(space, spaces.MultiDiscrete):
        return bool((value < 0).any() or (value >= space.nvec).any())
    return False


def require_same_spaces(
    what: str,
    theirs: tuple[spaces.Space[Any], spaces.Space[Any]],
    ours: tuple[spaces.Space[Any], spaces.Space[Any]],
    here: str = "this environment",
) -> None:
    """Raise ``DataError`` unless an agent would not notice the difference: flat spaces of the same keys and shapes."""
    pairs = [
        ("observation", flatten_observation_space(theirs[0]), flatten_observation_space(ours[0])),
        ("action", flatten_action_space(theirs[1]), flatten_action_space(ours[1])),
    ]
    for role, recorded, wanted in pairs:
        kinds = [{key: describe(space_to_json(space)) for key, space in flat.items()} for flat in (recorded, wanted)]
        if kinds[0] != kinds[1]:
            theirs_, ours_ = (", ".join(f"{key}: {kind}" for key, kind in found.items()) for found in kinds)
            raise DataError(f"{what} has the {role} space {theirs_}, but {here} has {ours_}")

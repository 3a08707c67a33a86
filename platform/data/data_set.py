"""A data set by its name: a folder of npz episodes, of Minari's or of MineRL's, or an id of Minari's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from oneiros.platform.data.episode import DataError, Episode
from oneiros.platform.data.minari_folder import is_minari, open_minari, read_minari, spaces_and_env
from oneiros.platform.data.minerl_folder import ENV as MINERL_ENV
from oneiros.platform.data.minerl_folder import is_minerl, minerl_spaces, read_minerl
from oneiros.platform.data.npz_folder import INDEX, Spaces, read_folder, read_index


@dataclass(frozen=True)
class DataSet:
    """Recorded episodes of one environment; reading them may raise ``DataError``."""

    place: str
    kind: str
    """``npz``, ``minari`` or ``minerl``."""
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    env: str | None
    """The environment that they were recorded in, if the data set says so."""
    episodes: Callable[[], Iterator[Episode]]


def open_data(place: str | Path, spaces_: Spaces | None = None) -> DataSet:
    """Open the data set at ``place``; no episode is read yet.

    ``spaces_`` are those of an environment that is named apart: needed for npz files without a ``data_set.json``.
    Raises ``DataError``.
    """
    place = str(place)
    if is_minari(place):
        data = open_minari(place)
        (observation, action), env = spaces_and_env(data)
        return DataSet(place, "minari", observation, action, env, lambda: read_minari(data))
    folder = Path(place)
    if is_minerl(folder):
        return DataSet(place, "minerl", *minerl_spaces(), MINERL_ENV, lambda: read_minerl(folder))
    if not folder.is_dir() or not any(folder.glob("*.npz")):
        reason = "it holds no episodes" if folder.is_dir() else "there is no such folder"
        raise DataError(
            f"{place} is no data set: {reason} "
            "(a folder of .npz episodes, one in Minari's format, one of MineRL's recordings, or minari:ID)"
        )
    env = None
    if (folder / INDEX).is_file():
        spaces_, env = read_index(folder)
    if spaces_ is None:
        raise DataError(
            f"{place} has no {INDEX}, so its spaces are unknown: "
            f"'oneiros data import {place} --env ID --to DIR' adds them"
        )
    known = spaces_
    return DataSet(place, "npz", *known, env, lambda: read_folder(folder, known))

"""Data sets as plain files: ``data_set.json`` and one ``episode-NNNNNNNN.npz`` each, readable with numpy alone.

An episode of ``T`` steps has ``observation`` ``(T + 1, ...)`` and ``action`` ``(T, ...)`` (``observation/<path>`` and
``action/<path>`` for nested spaces), ``reward`` ``(T,)`` and ``terminated`` ``()``, all in the environment's own dtypes
and units. ``data_set.json`` may be missing from a folder that somebody else wrote: the spaces are then to be named.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.envs.spaces import Leaf, action_leaves, observation_leaves
from oneiros.platform.checkpoint import CheckpointError, space_from_json, space_to_json
from oneiros.platform.data.episode import Array, DataError, Episode
from oneiros.platform.export.acting import nest, value_at

FORMAT = 1
INDEX = "data_set.json"
Spaces = tuple[spaces.Space[Any], spaces.Space[Any]]


def write_folder(folder: Path, episodes: Iterable[Episode], spaces_: Spaces, env: str | None) -> tuple[int, int]:
    """Write ``episodes`` into the new or empty ``folder``; returns how many, and their steps. Raises ``DataError``."""
    require_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = observation_leaves(spaces_[0]), action_leaves(spaces_[1])
    count = steps = 0
    for episode in episodes:
        arrays = {_name("observation", leaf): value_at(episode.observations, leaf) for leaf in leaves[0]}
        arrays |= {_name("action", leaf): value_at(episode.actions, leaf) for leaf in leaves[1]}
        arrays |= {"reward": episode.rewards, "terminated": np.array(episode.terminated)}
        np.savez_compressed(folder / f"episode-{count:08d}.npz", allow_pickle=False, **arrays)
        count, steps = count + 1, steps + episode.steps
    about = {
        "format": FORMAT,
        "oneiros": version("oneiros"),
        "env": env,
        "observation_space": space_to_json(spaces_[0]),
        "action_space": space_to_json(spaces_[1]),
        "episodes": count,
        "steps": steps,
    }
    (folder / INDEX).write_text(json.dumps(about, indent=1) + "\n")
    return count, steps


def read_index(folder: Path) -> tuple[Spaces, str | None]:
    """The spaces and the environment of a folder that has a ``data_set.json``; raises ``DataError``."""
    path = folder / INDEX
    try:
        about = json.loads(path.read_text())
        if about["format"] != FORMAT:
            raise DataError(f"{path} has the format {about['format']!r}; this version of Oneiros reads {FORMAT}")
        found = space_from_json(about["observation_space"]), space_from_json(about["action_space"])
        return found, about["env"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, CheckpointError) as error:
        raise DataError(f"{path} cannot be read: {error!r}") from error


def read_folder(folder: Path, spaces_: Spaces) -> Iterator[Episode]:
    """The episodes of a folder, in the order of their names; raises ``DataError`` naming what does not fit."""
    leaves = observation_leaves(spaces_[0]), action_leaves(spaces_[1])
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        yield _episode(path, arrays, *leaves)


def require_new(folder: Path) -> None:
    """Raise ``DataError`` unless ``folder`` is new or empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; choose a new folder for --to")


def _episode(path: Path, arrays: dict[str, Array], seen: tuple[Leaf, ...], done: tuple[Leaf, ...]) -> Episode:
    reward = _column(path, arrays, "reward", None)
    if reward.ndim != 1 or not len(reward):
        raise DataError(f"{path}: 'reward' has the shape {reward.shape}; an episode has at least one step, (T,)")
    steps = len(reward)
    observations, actions = (
        nest((leaf, _column(path, arrays, _name(kind, leaf), leaf, length)) for leaf in found)
        for kind, found, length in (("observation", seen, steps + 1), ("action", done, steps))
    )
    terminated = _column(path, arrays, "terminated", None)
    return Episode(observations, actions, reward.astype(np.float32), bool(terminated.reshape(-1)[-1]))


def _column(path: Path, arrays: dict[str, Array], name: str, leaf: Leaf | None, length: int = 0) -> Array:
    if name not in arrays:
        raise DataError(f"{path} lacks {name!r}; it has {', '.join(sorted(arrays))}")
    value = arrays[name]
    if leaf is None:
        return value
    wanted = (length, *(leaf.space.shape or ()))
    if value.shape != wanted:
        raise DataError(f"{path}: {name!r} has the shape {value.shape}, but must have {wanted}")
    return value


def _name(kind: str, leaf: Leaf) -> str:
    return "/".join([kind, *map(str, leaf.path)])

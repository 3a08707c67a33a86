"""Data sets in Minari's format: read from its registry's local copies or from any folder, written to any folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from oneiros.platform.data.episode import DataError, Episode
from oneiros.platform.data.npz_folder import Spaces, require_new

PREFIX = "minari:"
"""Of a data set by its id, as in ``minari:D4RL/pen/human-v2``."""
DATA = "data"
METADATA = "metadata.json"


def is_minari(place: str) -> bool:
    """Whether ``place`` is an id of Minari's, or a folder in its format."""
    return place.startswith(PREFIX) or (Path(place) / DATA / METADATA).is_file()


def open_minari(place: str) -> Any:
    """The ``minari.MinariDataset`` at ``place``; raises ``DataError``, also where Minari is not installed."""
    _require_minari()
    import minari

    try:
        if place.startswith(PREFIX):
            return minari.load_dataset(place.removeprefix(PREFIX))
        return minari.MinariDataset(Path(place) / DATA)
    except (FileNotFoundError, ValueError, KeyError, OSError) as error:
        raise DataError(f"the Minari data set {place} cannot be opened: {error}") from error


def spaces_and_env(data: Any) -> tuple[Spaces, str | None]:
    """The spaces of a ``MinariDataset``, and the id of its environment if it names one."""
    spec = data.env_spec
    env = data.storage.metadata.get("oneiros_env")
    return (data.observation_space, data.action_space), env or (None if spec is None else spec.id)


def read_minari(data: Any) -> Iterator[Episode]:
    """The episodes of a ``MinariDataset``."""
    for recorded in data.iterate_episodes():
        if len(recorded.rewards):
            yield Episode(
                recorded.observations,
                recorded.actions,
                np.asarray(recorded.rewards, np.float32),
                bool(np.asarray(recorded.terminations)[-1]),
            )


def write_minari(folder: Path, episodes: Iterable[Episode], spaces_: Spaces, env: str | None) -> tuple[int, int]:
    """Write ``episodes`` into the new or empty ``folder``; returns how many, and their steps. Raises ``DataError``."""
    _require_minari()
    require_new(folder)
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    # Minari joins a relative path to itself.
    place = folder.resolve() / DATA
    place.mkdir(parents=True)
    # Images as they are: what was learnt from is what is learnt from again.
    storage = MinariStorage.new(place, *spaces_, data_format="hdf5", jpeg_encoding=False)
    count = steps = 0

    def buffers() -> Iterator[EpisodeBuffer]:
        nonlocal count, steps
        for episode in episodes:
            nothing, end = [False] * episode.steps, [False] * (episode.steps - 1) + [True]
            yield EpisodeBuffer(
                id=count,
                observations=episode.observations,
                actions=episode.actions,
                rewards=episode.rewards.tolist(),
                terminations=end if episode.terminated else nothing,
                truncations=nothing if episode.terminated else end,
            )
            count, steps = count + 1, steps + episode.steps

    storage.update_episodes(buffers())
    about: dict[str, Any] = {"dataset_id": f"oneiros/{folder.name}-v0", "description": "A replay of Oneiros."}
    about |= {"algorithm_name": "oneiros", "oneiros": version("oneiros"), "minari_version": version("minari")}
    storage.update_metadata(about if env is None else about | {"oneiros_env": env})
    return count, steps


def _require_minari() -> None:
    if find_spec("minari") is None or find_spec("h5py") is None:
        raise DataError("data sets in Minari's format need Minari: pip install 'oneiros[minari]'")

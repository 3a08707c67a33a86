"""MineRL's data set: folders of one recording each (``rendered.npz`` and ``recording.mp4``), as episodes.

They are read in the terms of the diamond protocol (``oneiros.envs.minerl.demonstrations`` says how), so that they fit
``minerl/diamond``. MineRL itself is not needed.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.minecraft.actions import NAMES
from oneiros.envs.minecraft.observation import observation_space
from oneiros.envs.minerl.demonstrations import Unreadable, columns, convert
from oneiros.envs.minerl.items import equipment, kinds
from oneiros.envs.options import convert_image
from oneiros.platform.data.episode import DataError, Episode
from oneiros.platform.data.npz_folder import Spaces

ENV = "minerl/diamond"
ARRAYS, VIDEO = "rendered.npz", "recording.mp4"
SIDE = 64


def is_minerl(folder: Path) -> bool:
    """Whether ``folder`` is one recording of MineRL's, or holds some."""
    return bool(_recordings(folder))


def minerl_spaces() -> Spaces:
    """Those of ``minerl/diamond`` with pictures of the data's size."""
    return observation_space(SIDE, SIDE, len(kinds()), len(equipment())), spaces.Discrete(len(NAMES))


def read_minerl(folder: Path) -> Iterator[Episode]:
    """The recordings, in the order of their names; raises ``DataError`` naming the first that cannot be read."""
    for recording in _recordings(folder):
        try:
            with np.load(recording / ARRAYS, allow_pickle=False) as file:
                recorded = columns({name: file[name] for name in file.files})
            steps = len(recorded["reward"]) if "reward" in recorded else 0
            observations, actions, rewards = convert(recorded, _last_pictures(recording / VIDEO, steps + 1))
        except (OSError, ValueError, zipfile.BadZipFile, Unreadable) as error:
            raise DataError(f"the recording {recording} cannot be read: {error}") from error
        yield Episode(observations, actions, rewards, False)


def _recordings(folder: Path) -> list[Path]:
    if (folder / ARRAYS).is_file() and (folder / VIDEO).is_file():
        return [folder]
    return [path.parent for path in sorted(folder.glob(f"*/{ARRAYS}")) if (path.parent / VIDEO).is_file()]


def _last_pictures(video: Path, count: int) -> NDArray[np.uint8]:
    """``(count, 64, 64, 3)``: recordings begin before their first step, and end with their last observation."""
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(video), output_params=["-fps_mode", "passthrough"])
    pictures: list[NDArray[np.uint8]] = []
    with contextlib.closing(frames):
        try:
            width, height = next(frames)["size"]
            for frame in frames:
                pictures.append(np.frombuffer(frame, np.uint8).reshape(height, width, 3))
        except (OSError, RuntimeError, StopIteration) as error:
            said = str(error).strip().splitlines()
            raise Unreadable(f"{VIDEO} is no video: {said[-1] if said else 'it is empty'}") from error
    if len(pictures) < count:
        raise Unreadable(f"{VIDEO} has {len(pictures)} pictures, and {count} observations are recorded")
    return np.stack([convert_image(picture, (SIDE, SIDE)) for picture in pictures[-count:]])

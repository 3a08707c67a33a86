"""RLlib's ways of naming a checkpoint, brought to a local directory of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.fs
from oneiros.platform.checkpoint import CheckpointError, Description, Manifest, write_checkpoint
from ray.tune import Checkpoint
from ray.tune.trainable.trainable import _DICT_CHECKPOINT_FILE_NAME

Location = str | Path | Checkpoint
"""A directory, a URI that pyarrow knows (``s3://...``), or what Tune hands out."""
FileSystem = Any


def write_to(
    location: str | Path, filesystem: FileSystem | None, describe: Callable[[Path], Description]
) -> Path | None:
    """Write a checkpoint to a directory (returned) or a URI; raises ``CheckpointWriteError``."""
    path = str(location)
    if filesystem is None and "://" not in path:
        directory = Path(path).absolute()
        write_checkpoint(directory, describe)
        return directory
    if filesystem is None:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(path)
    with tempfile.TemporaryDirectory() as local:
        write_checkpoint(Path(local) / "checkpoint", describe)
        pyarrow.fs.copy_files(str(Path(local) / "checkpoint"), path, destination_filesystem=filesystem)
    return None


@contextmanager
def local_copy(location: Location, filesystem: FileSystem | None = None) -> Iterator[Path]:
    """The checkpoint as a local directory, downloaded if need be.

    Raises ``CheckpointError`` for a directory with the pickle that Tune itself would load from there.
    """
    checkpoint = location if isinstance(location, Checkpoint) else Checkpoint(str(location), filesystem=filesystem)
    with checkpoint.as_directory() as directory:
        if (Path(directory) / _DICT_CHECKPOINT_FILE_NAME).exists():
            raise CheckpointError(f"{directory} is not a checkpoint of ours: it holds {_DICT_CHECKPOINT_FILE_NAME}")
        yield Path(directory)


def config_of(manifest: Manifest, directory: Path) -> dict[str, Any]:
    """The config with which RLlib's engine wrote a checkpoint; raises ``CheckpointError`` if it holds none."""
    if "rllib" not in manifest.config:
        raise CheckpointError(
            f"{directory} was not written by RLlib's engine; pass config= with the run's settings to load it here"
        )
    values: dict[str, Any] = manifest.config["rllib"]
    if values["env"] is None:
        raise CheckpointError(
            f"{directory} was trained in an environment class, which no checkpoint holds; pass config= with that class"
        )
    return values

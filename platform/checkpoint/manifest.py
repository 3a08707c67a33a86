"""The manifest: what a checkpoint holds, what it was trained on, and the digest of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from oneiros.platform.checkpoint.errors import CheckpointError
from oneiros.platform.checkpoint.spaces import Space, describe, space_to_json
from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT = 1
MANIFEST = "manifest.json"


class FileRecord(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Everything about a checkpoint that can be known without reading its tensors."""

    model_config = ConfigDict(frozen=True)

    format: int
    oneiros: str
    """Version of the package that wrote it."""
    algorithm: str
    """Entry point, or ``module:Class``, of the agent."""
    created: float
    """Seconds since the epoch."""
    counters: dict[str, int]
    """At least ``env_steps`` and ``updates``."""
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    hyperparameters: dict[str, Any]
    """The agent's own settings, all of them."""
    config: dict[str, Any]
    """What is needed to build the same run again: JSON only."""
    score: float | None = None
    """Mean return when it was written; what "best" is chosen by."""
    files: dict[str, FileRecord]

    @property
    def env_steps(self) -> int:
        """Policy steps taken before this checkpoint."""
        return self.counters["env_steps"]


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of the checkpoint ``directory``.

    Raises ``CheckpointError`` if there is none, if it is damaged, or if a newer version of Oneiros wrote it.
    """
    path = directory / MANIFEST
    if not path.is_file():
        reason = "there is no such directory" if not directory.is_dir() else f"it has no {MANIFEST}"
        raise CheckpointError(f"{directory} is not a checkpoint: {reason}")
    try:
        content = json.loads(path.read_text())
        written_format = content["format"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the checkpoint {directory} is damaged: {MANIFEST} cannot be read ({error!r})"
        ) from error
    if not isinstance(written_format, int) or written_format > FORMAT:
        raise CheckpointError(
            f"the checkpoint {directory} has format {written_format!r}, "
            f"this version of Oneiros reads up to {FORMAT}: upgrade Oneiros"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"the checkpoint {directory} is damaged: {MANIFEST} is incomplete ({error})") from error


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with its recorded size and digest; raises ``CheckpointError`` naming the first unlike."""
    for name, record in manifest.files.items():
        path = directory / name
        if not path.resolve().is_relative_to(directory.resolve()):
            raise CheckpointError(f"the checkpoint {directory} is damaged: it names {name}, a file outside itself")
        if not path.is_file():
            raise CheckpointError(f"the checkpoint {directory} is damaged: {name} is missing")
        size = path.stat().st_size
        if size != record.bytes:
            raise CheckpointError(
                f"the checkpoint {directory} is damaged: {name} has {size} bytes instead of {record.bytes}"
            )
        if digest(path) != record.sha256:
            raise CheckpointError(f"the checkpoint {directory} is damaged: the checksum of {name} differs")


def require_spaces(manifest: Manifest, directory: Path, observation_space: Space, action_space: Space) -> None:
    """Raise ``CheckpointError`` in one sentence if the checkpoint was trained on other spaces."""
    pairs = [
        ("observation", manifest.observation_space, space_to_json(observation_space)),
        ("action", manifest.action_space, space_to_json(action_space)),
    ]
    for role, trained, current in pairs:
        if trained != current:
            raise CheckpointError(
                f"the checkpoint {directory} was trained with the {role} space {describe(trained)}, "
                f"but this environment has {describe(current)}"
            )


def require_algorithm(manifest: Manifest, directory: Path, algorithm: str) -> None:
    """Raise ``CheckpointError`` in one sentence if another algorithm wrote the checkpoint."""
    if manifest.algorithm != algorithm:
        raise CheckpointError(
            f"the checkpoint {directory} is of the algorithm {manifest.algorithm!r}, not {algorithm!r}"
        )


_DIGESTS: dict[tuple[int, int, int, int], str] = {}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; remembered by inode, so a hard-linked replay chunk is read once a process."""
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _DIGESTS:
        with path.open("rb") as file:
            _DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _DIGESTS[key]

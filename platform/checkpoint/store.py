"""A run's checkpoints: written one after the other, kept by policy, found again after a crash."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from oneiros.platform.checkpoint.atomic import atomic_directory, remove_directory, remove_partial
from oneiros.platform.checkpoint.errors import CheckpointError
from oneiros.platform.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    FileRecord,
    Manifest,
    digest,
    read_manifest,
    verify_files,
)
from oneiros.platform.checkpoint.spaces import Space, space_to_json

log = logging.getLogger(__name__)

SELF_CHECKED = "replay"
"""Files below a directory of this name carry checksums of their own: a damaged chunk of experience is set aside by the
replay that reads it, and the rest of the checkpoint is used."""


@dataclass(frozen=True)
class Description:
    """What the writer of a checkpoint says about it; the store adds the rest of the manifest."""

    algorithm: str
    counters: Mapping[str, int]
    hyperparameters: Mapping[str, Any]
    observation_space: Space
    action_space: Space
    config: Mapping[str, Any]
    score: float | None = None


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the ``last`` newest, the ``best`` by score, one every ``every`` env steps (0: none)."""

    last: int = 2
    best: int = 1
    every: int = 0

    def __post_init__(self) -> None:
        if self.last < 1 or self.best < 0 or self.every < 0:
            raise ValueError(
                f"checkpoint retention last={self.last}, best={self.best}, every={self.every}: "
                "last must be at least 1, the others not negative"
            )

    def kept(self, manifests: list[Manifest]) -> set[int]:
        """Return the indices to keep of ``manifests``, which are ordered from oldest to newest."""
        keep = set(range(max(0, len(manifests) - self.last), len(manifests)))
        scored = [i for i, manifest in enumerate(manifests) if manifest.score is not None]
        keep.update(sorted(scored, key=lambda i: (manifests[i].score, i))[len(scored) - min(self.best, len(scored)) :])
        if self.every:
            mark = None
            for i, manifest in enumerate(manifests):
                if mark is None or manifest.env_steps // self.every > mark:
                    keep.add(i)
                    mark = manifest.env_steps // self.every
        return keep


def write_checkpoint(directory: Path, describe: Callable[[Path], Description]) -> Manifest:
    """Write one checkpoint to ``directory``, whole or not at all.

    ``describe`` is given an empty directory, writes its files there and says what they are. An older checkpoint at
    ``directory`` is replaced only once the new one is on the disk. Raises ``CheckpointWriteError`` if the disk does
    not take it.
    """
    with atomic_directory(directory) as partial:
        description = describe(partial)
        files = {
            path.relative_to(partial).as_posix(): FileRecord(bytes=path.stat().st_size, sha256=digest(path))
            for path in sorted(partial.rglob("*"))
            if path.is_file() and SELF_CHECKED not in path.relative_to(partial).parts
        }
        manifest = Manifest(
            format=FORMAT,
            oneiros=metadata.version("oneiros"),
            algorithm=description.algorithm,
            created=time.time(),
            counters=dict(description.counters),
            observation_space=space_to_json(description.observation_space),
            action_space=space_to_json(description.action_space),
            hyperparameters=dict(description.hyperparameters),
            config=dict(description.config),
            score=description.score,
            files=files,
        )
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    return manifest


def open_checkpoint(directory: Path) -> Manifest:
    """Read and verify the checkpoint ``directory``; raises ``CheckpointError`` naming what is wrong with it."""
    manifest = read_manifest(directory)
    verify_files(directory, manifest)
    return manifest


class CheckpointStore:
    """The checkpoints of one run, in ``root``, named by their policy steps."""

    def __init__(self, root: Path, retention: Retention | None = None) -> None:
        self.root = root
        self.retention = retention or Retention()
        if root.is_dir():
            remove_partial(root)

    def save(self, env_steps: int, describe: Callable[[Path], Description]) -> Path:
        """Write the checkpoint of ``env_steps`` and remove those that the retention policy no longer keeps.

        Raises ``CheckpointWriteError``; the older checkpoints are then untouched.
        """
        directory = self.path(env_steps)
        write_checkpoint(directory, describe)
        self.prune()
        return directory

    def path(self, env_steps: int) -> Path:
        """Return where the checkpoint of ``env_steps`` lies."""
        return self.root / f"step-{env_steps:012d}"

    def checkpoints(self) -> list[tuple[Path, Manifest]]:
        """Return the checkpoints whose manifest can be read, oldest first; the others are named in the log."""
        found = []
        for directory in sorted(self.root.glob("step-*")):
            try:
                found.append((directory, read_manifest(directory)))
            except CheckpointError as error:
                log.warning("%s; it is left out", error)
        # A run that went on from an older one, because newer ones are damaged, writes newer ones of fewer steps.
        return sorted(found, key=lambda entry: entry[1].created)

    def latest(self) -> Path:
        """Return the newest checkpoint whose files are all as they were written.

        Damaged ones are named in the log and passed over. Raises ``CheckpointError`` if none is left.
        """
        return self._first_sound(list(reversed(self.checkpoints())))

    def best(self) -> Path:
        """Return the sound checkpoint of the highest score, or the latest if none has a score."""
        scored = [entry for entry in self.checkpoints() if entry[1].score is not None]
        if not scored:
            return self.latest()
        return self._first_sound(sorted(scored, key=lambda entry: (entry[1].score, entry[1].env_steps), reverse=True))

    def _first_sound(self, entries: list[tuple[Path, Manifest]]) -> Path:
        for directory, manifest in entries:
            try:
                verify_files(directory, manifest)
            except CheckpointError as error:
                log.warning("%s; trying an older one", error)
            else:
                return directory
        raise CheckpointError(f"{self.root} holds no usable checkpoint")

    def prune(self) -> None:
        """Remove the checkpoints that the retention policy no longer keeps."""
        entries = self.checkpoints()
        kept = self.retention.kept([manifest for _, manifest in entries])
        for i, (directory, _) in enumerate(entries):
            if i not in kept:
                remove_directory(directory)

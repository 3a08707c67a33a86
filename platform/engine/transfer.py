"""Checkpoints of learners that do not see the driver's disk: through Ray's object store, from host to host."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

import ray
from oneiros.platform.engine.learner_calls import LearnerCalls, LearnerDied
from ray.exceptions import RayError
from ray.tune.utils.file_transfer import sync_dir_between_nodes


class Saved(NamedTuple):
    """Where a learner has put its part of a checkpoint."""

    updates: int
    host: str | None
    """None: it sees the checkpoint's directory and wrote there; else the address of the host that it runs on."""
    directory: str


def save_parts(calls: LearnerCalls, directory: Path) -> int:
    """Have every learner's part in ``directory``; returns the updates in it."""
    parts: list[Saved] = calls.call("save", [{"directory": str(directory)}] * calls.learners)
    for rank, part in enumerate(parts):
        if part.host is not None:
            _copy(part.host, part.directory, this_host(), str(directory / f"learner-{rank}"))
    if any(part.host is not None for part in parts):
        calls.call("discard", [{"copy": None if part.host is None else part.directory} for part in parts])
    return parts[0].updates


def load_parts(calls: LearnerCalls, method: str, directory: Path, learners: int) -> None:
    """Call ``method`` (``load`` or ``recover``) of every learner with a directory that it sees.

    ``learners`` is how many wrote the checkpoint. Raises ``CheckpointError``.
    """
    blind: list[str | None] = calls.call("host_if_blind", [{"directory": str(directory)}] * calls.learners)
    name = f"oneiros-{directory.name}-{uuid.uuid4().hex[:8]}"
    copies = {host: str(Path(tempfile.gettempdir()) / name) for host in blind if host is not None}
    for host, copy in copies.items():
        _copy(this_host(), str(directory), host, copy)
    try:
        seen = [str(directory) if host is None else copies[host] for host in blind]
        calls.call(method, [{"directory": path, "learners": learners} for path in seen])
    finally:
        if copies:
            calls.settle()
            calls.call("discard", [{"copy": None if host is None else copies[host]} for host in blind])


def this_host() -> str:
    """The address of the host that this process runs on, as Ray knows it."""
    return str(ray.util.get_node_ip_address())


def _copy(source_host: str, source: str, target_host: str, target: str) -> None:
    try:
        sync_dir_between_nodes(source_host, source, target_host, target, max_size_bytes=None)
    except RayError as error:
        # The other host is a learner's: where it is gone, so is the learner.
        raise LearnerDied(f"a checkpoint could not be copied from {source_host} to {target_host}: {error}") from error

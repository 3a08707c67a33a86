"""Checkpoints of learners that do not see the driver's disk: through Ray's object store, from host to host."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ray
from oneiros.platform.engine.learner_calls import LearnerCalls, LearnerDied
from ray.exceptions import RayError
from ray.tune.utils.file_transfer import sync_dir_between_nodes


class Elsewhere(NamedTuple):
    """Where a learner that does not see the driver's disk has room for a copy of a checkpoint."""

    host: str
    directory: str


def save_parts(calls: LearnerCalls, directory: Path) -> int:
    """Have every learner's part in ``directory``; returns the updates in it."""
    with _copies(calls, directory) as copies:
        places = [str(directory) if copy is None else copy.directory for copy in copies]
        updates: list[int] = calls.call("save", [{"directory": place} for place in places])
        for rank, copy in enumerate(copies):
            if copy is not None:
                part = f"learner-{rank}"
                _copy(copy.host, f"{copy.directory}/{part}", this_host(), str(directory / part))
    return updates[0]


def load_parts(calls: LearnerCalls, method: str, directory: Path, learners: int) -> None:
    """Call ``method`` (``load`` or ``recover``) of every learner with a directory that it sees.

    ``learners`` is how many wrote the checkpoint. Raises ``CheckpointError``.
    """
    with _copies(calls, directory) as copies:
        for copy in {copy for copy in copies if copy is not None}:
            _copy(this_host(), str(directory), *copy)
        places = [str(directory) if copy is None else copy.directory for copy in copies]
        calls.call(method, [{"directory": place, "learners": learners} for place in places])


@contextmanager
def _copies(calls: LearnerCalls, directory: Path) -> Iterator[list[Elsewhere | None]]:
    """Where each learner has a copy of ``directory`` of its own, None if it sees it; none is left behind."""
    room: list[Elsewhere | None] = calls.call("elsewhere", [{"directory": str(directory)}] * calls.learners)
    name = f"oneiros-{directory.name}-{uuid.uuid4().hex[:8]}"
    copies = [there and Elsewhere(there.host, f"{there.directory}/{name}") for there in room]
    try:
        yield copies
    finally:
        if any(copies):
            calls.settle()
            calls.call("discard", [{"copy": copy and copy.directory} for copy in copies])


def this_host() -> str:
    """The address of the host that this process runs on, as Ray knows it."""
    return str(ray.util.get_node_ip_address())


def _copy(source_host: str, source: str, target_host: str, target: str) -> None:
    try:
        sync_dir_between_nodes(source_host, source, target_host, target, max_size_bytes=None)
    except RayError as error:
        # The other host is a learner's: where it is gone, so is the learner.
        raise LearnerDied(f"a checkpoint could not be copied from {source_host} to {target_host}: {error}") from error

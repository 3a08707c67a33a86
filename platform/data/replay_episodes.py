"""The episodes in a checkpoint's replay, read from its files one chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from oneiros.envs.spaces import ActionCodec, ObservationCodec
from oneiros.platform.checkpoint import Manifest
from oneiros.platform.data.episode import Array, DataError, Episode, from_rows
from oneiros.platform.replay import CorruptChunk, ReplayMismatch
from oneiros.platform.replay.reading import stored_rows
from oneiros.platform.training.agents import experience_fields
from oneiros.platform.training.policy_file import policy_spaces


class ReplayEpisodes:
    """Iterates over the episodes; ``cut`` counts those whose beginning was evicted, which are left out."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        self.spaces = policy_spaces(manifest)
        self.cut = 0
        self._observations, self._actions = ObservationCodec(self.spaces[0]), ActionCodec(self.spaces[1])
        self._fields = experience_fields(self._observations.space, self._actions.space)
        self._directories = [
            checkpoint / f"learner-{rank}" / "replay" for rank in range(manifest.counters.get("learners", 0))
        ]
        if not self._directories or not all(directory.is_dir() for directory in self._directories):
            raise DataError(f"the checkpoint {checkpoint} holds no replay")

    def __iter__(self) -> Iterator[Episode]:
        for directory in self._directories:
            try:
                yield from self._shard(directory)
            except (CorruptChunk, ReplayMismatch, OSError) as error:
                raise DataError(f"the replay {directory} cannot be read: {error}") from error

    def _shard(self, directory: Path) -> Iterator[Episode]:
        under_way: dict[int, list[dict[str, Array]]] = {}
        for stream, joins, rows in stored_rows(self._fields, directory):
            edges = np.flatnonzero(~joins | rows["is_first"])
            ends = np.flatnonzero(rows["is_last"]) + 1
            cuts = sorted({0, len(joins), *edges.tolist(), *ends.tolist()})
            for start, stop in pairwise(cuts):
                if not joins[start] or rows["is_first"][start]:
                    yield from self._finished(under_way.pop(stream, []))
                part = {key: column[start:stop] for key, column in rows.items()}
                under_way.setdefault(stream, []).append(part)
                if rows["is_last"][stop - 1]:
                    yield from self._finished(under_way.pop(stream))
        for parts in under_way.values():
            yield from self._finished(parts)

    def _finished(self, parts: list[dict[str, Array]]) -> Iterator[Episode]:
        if not parts:
            return
        rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        if not rows["is_first"][0]:
            self.cut += 1
        elif len(rows["reward"]) > 1:
            yield from_rows(rows, self._observations, self._actions)

"""Learners that die: their state is saved now and then, and the group is built again from it.

RLlib restarts env runners but not learners. Weights go back to the last saved state; experience does not, where the
replay is on a disk that the new learner can read (``replay(directory=...)``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oneiros.platform.checkpoint import (
    CheckpointError,
    CheckpointStore,
    CheckpointWriteError,
    Description,
    Manifest,
    Retention,
    open_checkpoint,
    read_tree,
)
from oneiros.platform.engine.config import WorldModelConfig
from oneiros.platform.engine.learner_calls import LearnerCalls, LearnerDied
from oneiros.platform.engine.transfer import load_parts
from ray.exceptions import RayError
from ray.rllib.core.learner.learner_group import LearnerGroup

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps a state to go back to, and rebuilds the learners from it."""

    def __init__(self, config: WorldModelConfig, write: Callable[[Path], Description]) -> None:
        """``write`` writes a whole checkpoint into an empty directory, as ``write_checkpoint`` wants it."""
        self.config = config
        self.restarts = 0
        self.failed_saves = 0
        self._restarts_since_saved = 0
        self._write = write
        directory = config.recovery_directory
        self._store = CheckpointStore(Path(directory), Retention(last=1, best=0)) if directory else None
        self._newest: Path | None = None
        self._own: Path | None = None
        self._saved_at = time.monotonic()

    def saved(self, directory: Path) -> None:
        """Take note of a checkpoint that somebody else wrote."""
        self._newest = directory
        self._saved_at = time.monotonic()
        self._restarts_since_saved = 0

    @property
    def keeps(self) -> bool:
        """Whether states to go back to are kept at all."""
        return self._store is not None

    @property
    def due(self) -> bool:
        """Whether there is no state to go back to, or one older than ``recovery_interval_s``."""
        if self._store is None:
            return False
        old = time.monotonic() - self._saved_at >= self.config.recovery_interval_s
        # Whoever asked for a checkpoint may have moved it, or removed it, as Tune does with what it has copied.
        return old or self._newest is None or not self._newest.is_dir()

    def save(self, env_steps: int) -> None:
        """Save a state to go back to; a full disk is survived. Nothing may be in flight at the learners."""
        assert self._store is not None
        self._saved_at = time.monotonic()
        try:
            self._newest = self._own = self._store.save(env_steps, self._write)
            self._restarts_since_saved = 0
        except CheckpointWriteError as error:
            if not self.failed_saves:
                log.warning("%s; training goes on (further times are only counted)", error)
            self.failed_saves += 1

    def rebuild(
        self, group: LearnerGroup, build: Callable[[], LearnerGroup], reason: LearnerDied
    ) -> tuple[LearnerGroup, LearnerCalls, dict[str, Any], int]:
        """Build the learners again and give them the newest saved state.

        Returns the group, the way to call it, the loop's state as it was saved, and the updates in it. Raises
        ``LearnerDied`` if there is no state to go back to, or if the learners died too often since it was saved.
        """
        state, manifest = self._to_go_back_to(reason)
        while True:
            if self._restarts_since_saved >= self.config.most_learner_restarts:
                times = f"{self._restarts_since_saved + 1} times since a state was saved"
                raise LearnerDied(f"{reason}; learners died {times}, so training ends") from reason
            self.restarts += 1
            self._restarts_since_saved += 1
            log.warning("%s; building the learners again from %s", reason, state)
            group.shutdown()
            try:
                group = build()
                calls = self.call(group)
                load_parts(calls, "recover", state, manifest.counters["learners"])
            except LearnerDied as death:
                reason = death
            except RayError as error:
                reason = LearnerDied(f"a learner died while it was built again ({str(error).splitlines()[0]})")
            else:
                return group, calls, read_tree(state / "loop"), manifest.counters["updates"]

    def _to_go_back_to(self, reason: LearnerDied) -> tuple[Path, Manifest]:
        """The newest saved state that can be used; raises ``LearnerDied``."""
        wrong: CheckpointError | None = None
        for place in (self._newest, self._own):
            if place is None:
                continue
            try:
                return place, open_checkpoint(place)
            except CheckpointError as error:
                wrong = wrong or error
        if wrong is not None:
            raise LearnerDied(f"{reason}; and the state to go on from cannot be used: {wrong}") from wrong
        raise LearnerDied(
            f"{reason}; no state was saved to go on from (fault_tolerance(recovery_directory=...) keeps one)"
        ) from reason

    def call(self, group: LearnerGroup) -> LearnerCalls:
        """Return the way to call the learners of ``group``."""
        return LearnerCalls(group, self.config.threads_of_learner(), self.config.learner_timeout_s)

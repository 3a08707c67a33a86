"""The rollout as the training loop sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oneiros.platform.rollout import Chunk, Episode, Rollout


class Collected(NamedTuple):
    """What one stretch of acting brought."""

    chunk: Chunk
    episodes: list[Episode]
    """Those that ended in it."""
    faults: dict[str, int]
    """What went wrong in it and was survived, by kind."""


class RolloutCollector:
    """Asks a rollout for chunks, and says what is new since the last one."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self._faults: dict[str, int] = {}

    def collect(self, steps: int) -> Collected:
        """Take ``steps`` steps in every environment."""
        chunk = self.rollout.collect(steps)
        return Collected(chunk, self.rollout.episodes(), self._new_faults())

    def state_dict(self) -> dict[str, Any]:
        """Return what going on needs: environments where they can say their state, policy state, random state."""
        return self.rollout.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``; environments that could not say their state begin new episodes."""
        self.rollout.load_state_dict(state)
        self._faults = self._totals()

    def close(self) -> None:
        """Close the environments."""
        self.rollout.close()

    def _new_faults(self) -> dict[str, int]:
        totals = self._totals()
        new = {name: count - self._faults.get(name, 0) for name, count in totals.items()}
        self._faults = totals
        return {name: count for name, count in new.items() if count}

    def _totals(self) -> dict[str, int]:
        return {
            name.replace("faults/", "env_"): int(count)
            for name, count in self.rollout.metrics().items()
            if name.startswith("faults/")
        }

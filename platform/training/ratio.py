"""The train ratio: how many steps are replayed for each step that the policy takes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


class TrainRatio:
    """Says how many updates are due, so that ``replayed steps / policy steps`` equals ``ratio`` exactly.

    An update replays ``rows_per_update`` steps (batch size x batch length, context not counted, over all learners).
    Counting begins at ``start``: steps collected before the first update could run owe nothing, as in the
    original. All arithmetic is on integers, so nothing drifts however long a run is.
    """

    def __init__(self, ratio: float, rows_per_update: int) -> None:
        """Raises ``ValueError`` unless ``ratio`` is finite and not negative, and ``rows_per_update`` positive."""
        if not 0 <= ratio < float("inf"):
            raise ValueError(f"train_ratio is {ratio}; it must be a finite number of replayed steps, 0 or more")
        if rows_per_update < 1:
            raise ValueError(f"an update replays {rows_per_update} steps; it must be at least 1")
        self.ratio = ratio
        self.rows_per_update = rows_per_update
        self._per_step = Fraction(str(ratio)) / rows_per_update
        self._started_at: int | None = None
        self._updates = 0

    @property
    def started(self) -> bool:
        """Whether steps are being counted."""
        return self._started_at is not None

    def start(self, env_steps: int) -> None:
        """Count policy steps from here on; later calls change nothing."""
        if self._started_at is None:
            self._started_at = env_steps

    def due(self, env_steps: int) -> int:
        """Return how many updates may run now that ``env_steps`` policy steps were taken in all."""
        if self._started_at is None:
            return 0
        allowed = (env_steps - self._started_at) * self._per_step
        return max(0, allowed.numerator // allowed.denominator - self._updates)

    def done(self, updates: int) -> None:
        """Record updates that ran, or were handed to a learner that will run them."""
        self._updates += updates

    def actual(self, env_steps: int) -> float:
        """Return replayed steps per policy step since ``start``; 0 before it."""
        if self._started_at is None or env_steps <= self._started_at:
            return 0.0
        return self._updates * self.rows_per_update / (env_steps - self._started_at)

    def state_dict(self) -> dict[str, float | int | None]:
        """Return what ``load_state_dict`` needs to go on without repeating or skipping an update."""
        return {
            "ratio": self.ratio,
            "rows_per_update": self.rows_per_update,
            "started_at": self._started_at,
            "updates": self._updates,
        }

    def load_state_dict(self, state: Mapping[str, float | int | None], env_steps: int) -> None:
        """Go on from ``state``; counting starts afresh at ``env_steps`` if the ratio or the batch has changed."""
        if state["started_at"] is None:
            self._started_at, self._updates = None, 0
        elif (state["ratio"], state["rows_per_update"]) == (self.ratio, self.rows_per_update):
            self._started_at, self._updates = int(state["started_at"]), int(state["updates"] or 0)
        else:
            self._started_at, self._updates = env_steps, 0

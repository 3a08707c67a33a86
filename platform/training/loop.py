"""Collecting and learning in turns, in one thread: what one process does, and repeats exactly given a seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from oneiros.platform.training.collector import Collected
from oneiros.platform.training.core import LearnerCore
from oneiros.platform.training.episodes import EpisodeLog
from oneiros.platform.training.ratio import TrainRatio


class Collector(Protocol):
    """Steps environments with a policy."""

    def collect(self, steps: int) -> Collected:
        """Take ``steps`` steps in every environment."""


class Loop:
    """Takes a few steps, stores them, takes the updates that are due, and begins again with the new weights.

    The order of everything that draws random numbers is fixed, so two loops built alike go on alike.
    """

    def __init__(
        self,
        core: LearnerCore,
        collector: Collector,
        ratio: TrainRatio,
        *,
        fragment: int,
        learning_starts: int = 0,
    ) -> None:
        """``fragment``: steps of each environment between two looks at what is due."""
        self.core = core
        self.collector = collector
        self.ratio = ratio
        self.episodes = EpisodeLog()
        self.env_steps = 0
        self.faults: dict[str, int] = {}
        self._fragment = fragment
        self._learning_starts = learning_starts
        self._learnt: dict[str, float] = {}
        self._hurried = False

    def hurry(self) -> None:
        """Have ``run`` end after the update that it is about; what else is due comes first when it goes on."""
        self._hurried = True
        self.core.hurry()

    def run(self, steps: int | None = None, seconds: float | None = None) -> None:
        """Go on for at least ``steps`` policy steps, or ``seconds``, whichever is given and ends first.

        Raises ``TrainingDiverged`` as ``LearnerCore.update`` does; the loop can be saved all the same.
        """
        last_step = None if steps is None else self.env_steps + steps
        until = None if seconds is None else time.perf_counter() + seconds
        readings: list[tuple[int, dict[str, float]]] = []
        try:
            self._learn(readings)
            while (last_step is None or self.env_steps < last_step) and (until is None or time.perf_counter() < until):
                self._collect()
                self._learn(readings)
                if self._hurried:
                    break
        finally:
            self._learnt |= _weighted_means(readings)

    def metrics(self) -> dict[str, float]:
        """Counters, the recent episodes, the replay's statistics, and means over the updates of the last ``run``."""
        return {
            "env_steps": self.env_steps,
            "train_ratio": self.ratio.actual(self.env_steps),
            "policy_age": 0,
            **self.episodes.metrics(),
            **self.core.metrics(),
            **{f"faults/{name}": count for name, count in self.faults.items()},
            **self._learnt,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the core and the collector keep their own states."""
        return {
            "env_steps": self.env_steps,
            "ratio": self.ratio.state_dict(),
            "episodes": self.episodes.state_dict(),
            "faults": dict(self.faults),
            "learnt": dict(self._learnt),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self.env_steps = state["env_steps"]
        self.ratio.load_state_dict(state["ratio"], self.env_steps)
        self.episodes.load_state_dict(state["episodes"])
        self.faults = dict(state["faults"])
        self._learnt = dict(state.get("learnt", {}))

    def _collect(self) -> None:
        chunk, episodes, faults = self.collector.collect(self._fragment)
        self.core.add(chunk)
        self.env_steps += chunk.env_steps
        self.episodes.add(episodes)
        for name, count in faults.items():
            self.faults[name] = self.faults.get(name, 0) + count
        if not self.ratio.started and self.env_steps >= self._learning_starts and self.core.ready:
            self.ratio.start(self.env_steps)

    def _learn(self, readings: list[tuple[int, dict[str, float]]]) -> None:
        due, before = self.ratio.due(self.env_steps), self.core.updates
        if not due:
            return
        try:
            metrics = self.core.update(due)
        finally:
            taken = self.core.updates - before
            self.ratio.done(taken)
        readings.append((taken, metrics))


def _weighted_means(readings: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Means of metrics over slices of different numbers of updates."""
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}
    for updates, metrics in readings:
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + updates * value
            weights[name] = weights.get(name, 0) + updates
    return {name: total / weights[name] for name, total in sums.items()}

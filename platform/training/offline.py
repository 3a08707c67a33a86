"""Learning from recorded episodes alone: no environment is stepped."""

from __future__ import annotations

from pathlib import Path

from oneiros.platform.config import ConfigError, RunConfig
from oneiros.platform.data import DataError, fill, open_data
from oneiros.platform.training.one_process import OneProcessEngine
from oneiros.platform.training.pace import iteration_steps
from oneiros.platform.training.rates import Rates


class OfflineEngine(OneProcessEngine):
    """Trains the agent that the ``RunConfig`` names on the data set ``data.offline``, in this process.

    ``env_steps`` are those that its updates would have taken in an environment at the run's train ratio, so that runs
    are as long as, and comparable with, those that act. An environment is made only to evaluate.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises ``ConfigError``, ``DataError`` and ``UnsupportedSpace``."""
        if config.data.offline is None:
            raise ConfigError("data.offline must be given.")
        self.data = open_data(config.data.offline)
        super().__init__(config, self.data.observation_space, self.data.action_space, online=False)

    @property
    def env_steps(self) -> int:
        """The policy steps that the updates so far stand for."""
        return int(self.core.updates * self._rows / self.config.train_ratio)

    def step(self) -> dict[str, float]:
        """Take about eight updates; reads the data set first, if that was not done yet. Raises ``DataError``."""
        if not len(self.core.replay):
            self._fill()
        steps = iteration_steps(self._rows, self.config.train_ratio)
        learnt = self.core.update(max(1, round(steps * self.config.train_ratio / self._rows)))
        speeds = self._rates.per_second({"updates": self.core.updates})
        counters = {"env_steps": float(self.env_steps), "train_ratio": self.config.train_ratio}
        return {**counters, **self.core.metrics(), **learnt, **speeds}

    def hurry(self) -> None:
        """Have ``step`` return after the next update."""
        self.core.hurry()

    def restore(self, path: Path) -> None:
        """Go on exactly where ``save`` was; raises ``CheckpointError``."""
        self._opened(path)
        self.core.load(path / "learner-0")
        self._rates = Rates()

    def prefill(self, place: str) -> None:
        """Learn from a second data set too; raises ``DataError``."""
        if not len(self.core.replay):
            self._fill()
        fill(self.core.replay, open_data(place))

    def _fill(self) -> None:
        filled = fill(self.core.replay, self.data)
        if not self.core.ready:
            raise DataError(
                f"{self.data.place} has {filled.steps:,} steps in {filled.episodes} episodes, which is not one "
                f"sequence of {self.core.replay.window}; set batch_length lower"
            )

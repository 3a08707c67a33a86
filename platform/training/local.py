"""Everything in one process, without Ray: for tests, debugging, exact resume, and bare machines."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from oneiros.envs import registry
from oneiros.platform.checkpoint import Description, read_tree, write_tree
from oneiros.platform.config import RunConfig
from oneiros.platform.data import fill, open_data
from oneiros.platform.rollout import Rollout
from oneiros.platform.training.collector import RolloutCollector
from oneiros.platform.training.loop import Loop
from oneiros.platform.training.one_process import OneProcessEngine
from oneiros.platform.training.pace import fragment_length, iteration_steps
from oneiros.platform.training.rates import Rates
from oneiros.platform.training.ratio import TrainRatio


class LocalEngine(OneProcessEngine):
    """Collects and learns in turns; given a seed, two of them agree in every number but the speeds.

    Environments, agent and replay are those that the ``RunConfig`` names. The agent acts itself, so it always acts
    with its newest weights.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises ``ConfigError``, the registry's errors, and ``UnsupportedSpace``."""
        env = registry.make_vector(
            config.env, config.num_envs_per_runner, config.vectorization, config.seed, **config.env_options
        )
        with ExitStack() as built:
            built.callback(env.close)
            super().__init__(config, env.single_observation_space, env.single_action_space, online=config.replay.online)
            built.callback(self.core.close)
            rollout = Rollout(env, self.agent, random_steps=config.random_steps, seed=config.seed, device=self._device)
            self.collector = RolloutCollector(rollout)
            self.loop = Loop(
                self.core,
                self.collector,
                TrainRatio(config.train_ratio, self._rows),
                fragment=fragment_length(self._rows, config.train_ratio, config.num_envs_per_runner),
                learning_starts=config.learning_starts,
            )
            self._iteration_steps = iteration_steps(self._rows, config.train_ratio)
            built.pop_all()

    @property
    def env_steps(self) -> int:
        """Policy steps taken so far."""
        return self.loop.env_steps

    def step(self) -> dict[str, float]:
        """Take about eight updates' worth of policy steps, always the same number, and the updates that are due."""
        self.loop.run(steps=self._iteration_steps)
        metrics = self.loop.metrics()
        speeds = self._rates.per_second({"env_steps": self.env_steps, "updates": self.core.updates})
        return metrics | speeds

    def hurry(self) -> None:
        """Have ``step`` return after the next update."""
        self.loop.hurry()

    def restore(self, path: Path) -> None:
        """Go on exactly where ``save`` was; raises ``CheckpointError``.

        Environments that cannot say their state begin new episodes instead. A checkpoint that was written with env
        runners, or with another number of environments, has no state of them either.
        """
        learners = self._opened(path).counters["learners"]
        if learners == 1:
            self.core.load(path / "learner-0")
        else:
            self.core.load_shared([path / f"learner-{rank}" for rank in range(learners)], 0, 1)
        self.loop.load_state_dict(read_tree(path / "loop"))
        self._rates = Rates()
        rollout = read_tree(path / "rollout") if (path / "rollout.json").is_file() else None
        if rollout is not None and len(rollout["streams"]) == self.config.num_envs_per_runner:
            self.collector.load_state_dict(rollout)
        else:
            self.core.break_streams()
            self.collector.rollout.random_left = max(0, self.config.random_steps - self.env_steps)

    def prefill(self, place: str) -> None:
        """Put the episodes of a data set into the replay; raises ``DataError``."""
        fill(self.core.replay, open_data(place))

    def close(self) -> None:
        """Close environments and replay."""
        try:
            super().close()
        finally:
            self.collector.close()

    def _write(self, directory: Path) -> Description:
        written = super()._write(directory)
        write_tree(directory / "loop", self.loop.state_dict())
        write_tree(directory / "rollout", self.collector.state_dict())
        episodes = self.loop.episodes
        return replace(written, counters={**written.counters, "episodes": episodes.count}, score=episodes.mean_return)

"""Learning from recorded episodes alone: no environment is stepped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oneiros.platform.checkpoint import (
    Description,
    open_checkpoint,
    require_algorithm,
    require_spaces,
    write_checkpoint,
)
from oneiros.platform.config import ConfigError, RunConfig
from oneiros.platform.data import DataError, fill, open_data
from oneiros.platform.training.agents import agent_name, build_agent, hyperparameters, resolve_device
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.compiling import settle_compile
from oneiros.platform.training.engine import EvaluationResult, Videos
from oneiros.platform.training.fine_tuning import adopt, read_learnt
from oneiros.platform.training.pace import iteration_steps
from oneiros.platform.training.playing import play
from oneiros.platform.training.policy_file import save_policy
from oneiros.platform.training.rates import Rates


class OfflineEngine:
    """Trains the agent that the ``RunConfig`` names on the data set ``data.offline``, in this process.

    ``env_steps`` are those that its updates would have taken in an environment at the run's train ratio, so that runs
    are as long as, and comparable with, those that act. An environment is made only to evaluate.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises ``ConfigError``, ``DataError`` and ``UnsupportedSpace``."""
        self.config = config
        if config.data.offline is None:
            raise ConfigError("data.offline must be given.")
        self.data = open_data(config.data.offline)
        self._hyper = hyperparameters(config.agent, settle_compile(config))
        device = resolve_device(config.device)
        self._spaces = self.data.observation_space, self.data.action_space
        self.agent = build_agent(config.agent, self._hyper, *self._spaces, device=str(device), seed=config.seed)
        self.core = build_core(
            self.agent,
            self._hyper,
            *self._spaces,
            device=device,
            ahead=device.type == "cuda",
            capacity=config.replay.capacity,
            directory=config.run_dir / "replay" if config.replay.on_disk and config.run_dir else None,
            online=False,
            mixture=config.replay.mixture,
            latent_stride=config.replay.latent_stride,
            seed=config.seed,
        )
        self._rows = self._hyper.batch_size * self._hyper.batch_length
        self._rates = Rates()

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

    def save(self, path: Path) -> None:
        """Write everything into the checkpoint ``path``; raises ``CheckpointWriteError``."""
        write_checkpoint(path, self._write)

    def restore(self, path: Path) -> None:
        """Go on exactly where ``save`` was; raises ``CheckpointError``."""
        manifest = open_checkpoint(path)
        require_algorithm(manifest, path, agent_name(self.config.agent))
        require_spaces(manifest, path, *self._spaces)
        self.core.load(path / "learner-0")
        self._rates = Rates()

    def begin_from(self, checkpoint: Path, reset: Sequence[str]) -> None:
        """Take over what the agent of another run has learnt; raises ``CheckpointError`` and ``ConfigError``."""
        adopt(self.agent, read_learnt(checkpoint), reset)

    def prefill(self, place: str) -> None:
        """Learn from a second data set too; raises ``DataError``."""
        if not len(self.core.replay):
            self._fill()
        fill(self.core.replay, open_data(place))

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Play ``episodes`` in the environment that the run names."""
        return play(
            self.config, self._hyper, self.core, self._spaces, episodes=episodes, seed=seed, env_steps=self.env_steps
        )

    def videos(self) -> Videos:
        """Return open-loop predictions of recorded sequences beside what happened."""
        report = self.core.report() if self.core.ready else {}
        return {name: video.numpy() for name, video in report.items() if video.ndim == 4}

    def close(self) -> None:
        """Close the replay."""
        self.core.close()

    def _fill(self) -> None:
        filled = fill(self.core.replay, self.data)
        if not self.core.ready:
            raise DataError(
                f"{self.data.place} has {filled.steps:,} steps in {filled.episodes} episodes, which is not one "
                f"sequence of {self.core.replay.window}; set batch_length lower"
            )

    def _write(self, directory: Path) -> Description:
        self.core.save(directory / "learner-0")
        save_policy(self.core.policy_state(), directory)
        return Description(
            algorithm=agent_name(self.config.agent),
            hyperparameters=self._hyper.model_dump(mode="json"),
            counters={"env_steps": self.env_steps, "updates": self.core.updates, "episodes": 0, "learners": 1},
            observation_space=self._spaces[0],
            action_space=self._spaces[1],
            config=self.config.to_dict(),
        )

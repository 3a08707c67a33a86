"""Everything in one process, without Ray: for tests, debugging, exact resume, and bare machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oneiros.envs import registry
from oneiros.platform.checkpoint import (
    Description,
    open_checkpoint,
    read_tree,
    require_algorithm,
    require_spaces,
    write_checkpoint,
    write_tree,
)
from oneiros.platform.config import RunConfig
from oneiros.platform.data import fill, open_data
from oneiros.platform.rollout import Rollout
from oneiros.platform.training.agents import agent_name, build_agent, hyperparameters, resolve_device
from oneiros.platform.training.assembly import build_core
from oneiros.platform.training.collector import RolloutCollector
from oneiros.platform.training.compiling import settle_compile
from oneiros.platform.training.engine import EvaluationResult, Videos
from oneiros.platform.training.fine_tuning import adopt, read_learnt
from oneiros.platform.training.loop import Loop
from oneiros.platform.training.pace import fragment_length, iteration_steps
from oneiros.platform.training.playing import play
from oneiros.platform.training.policy_file import save_policy
from oneiros.platform.training.rates import Rates
from oneiros.platform.training.ratio import TrainRatio


class LocalEngine:
    """Collects and learns in turns; given a seed, two of them agree in every number but the speeds.

    Environments, agent and replay are those that the ``RunConfig`` names. The agent acts itself, so it always acts
    with its newest weights.
    """

    def __init__(self, config: RunConfig) -> None:
        """Raises ``ConfigError``, the registry's errors, and ``UnsupportedSpace``."""
        self.config = config
        self._hyper = hyperparameters(config.agent, settle_compile(config))
        device = resolve_device(config.device)
        env = registry.make_vector(
            config.env, config.num_envs_per_runner, config.vectorization, config.seed, **config.env_options
        )
        self._observation_space, self._action_space = env.single_observation_space, env.single_action_space
        self._spaces = self._observation_space, self._action_space
        self.agent = build_agent(
            config.agent,
            self._hyper,
            self._observation_space,
            self._action_space,
            device=str(device),
            seed=config.seed,
        )
        self.core = build_core(
            self.agent,
            self._hyper,
            self._observation_space,
            self._action_space,
            device=device,
            # Beside a GPU, speed counts more than repeating bit for bit, which its kernels do not do anyway.
            ahead=device.type == "cuda",
            capacity=config.replay.capacity,
            directory=config.run_dir / "replay" if config.replay.on_disk and config.run_dir else None,
            online=config.replay.online,
            mixture=config.replay.mixture,
            latent_stride=config.replay.latent_stride,
            seed=config.seed,
        )
        rollout = Rollout(env, self.agent, random_steps=config.random_steps, seed=config.seed, device=device)
        self.collector = RolloutCollector(rollout)
        rows = self._hyper.batch_size * self._hyper.batch_length
        self.loop = Loop(
            self.core,
            self.collector,
            TrainRatio(config.train_ratio, rows),
            fragment=fragment_length(rows, config.train_ratio, config.num_envs_per_runner),
            learning_starts=config.learning_starts,
        )
        self._iteration_steps = iteration_steps(rows, config.train_ratio)
        self._rates = Rates()

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

    def save(self, path: Path) -> None:
        """Write everything into the checkpoint ``path``; raises ``CheckpointWriteError``."""
        write_checkpoint(path, self._write)

    def restore(self, path: Path) -> None:
        """Go on exactly where ``save`` was; raises ``CheckpointError``.

        Environments that cannot say their state begin new episodes instead. A checkpoint that was written with env
        runners, or with another number of environments, has no state of them either.
        """
        manifest = open_checkpoint(path)
        require_algorithm(manifest, path, agent_name(self.config.agent))
        require_spaces(manifest, path, self._observation_space, self._action_space)
        learners = manifest.counters["learners"]
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

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Play ``episodes`` with a copy of the policy, in environments of their own."""
        return play(
            self.config, self._hyper, self.core, self._spaces, episodes=episodes, seed=seed, env_steps=self.env_steps
        )

    def begin_from(self, checkpoint: Path, reset: Sequence[str]) -> None:
        """Take over what the agent of another run has learnt; raises ``CheckpointError`` and ``ConfigError``."""
        adopt(self.agent, read_learnt(checkpoint), reset)

    def prefill(self, place: str) -> None:
        """Put the episodes of a data set into the replay; raises ``DataError``."""
        fill(self.core.replay, open_data(place))

    def videos(self) -> Videos:
        """Return open-loop predictions of replayed sequences beside what happened; nothing before there are any."""
        if not self.core.ready:
            return {}
        report = self.core.report()
        return {name: video.numpy() for name, video in report.items() if video.ndim == 4}

    def close(self) -> None:
        """Close environments and replay."""
        self.core.close()
        self.collector.close()

    def _write(self, directory: Path) -> Description:
        self.core.save(directory / "learner-0")
        save_policy(self.core.policy_state(), directory)
        write_tree(directory / "loop", self.loop.state_dict())
        write_tree(directory / "rollout", self.collector.state_dict())
        return Description(
            algorithm=agent_name(self.config.agent),
            hyperparameters=self._hyper.model_dump(mode="json"),
            counters={
                "env_steps": self.env_steps,
                "updates": self.core.updates,
                "episodes": self.loop.episodes.count,
                "learners": 1,
            },
            observation_space=self._observation_space,
            action_space=self._action_space,
            config=self.config.to_dict(),
            score=self.loop.episodes.mean_return,
        )

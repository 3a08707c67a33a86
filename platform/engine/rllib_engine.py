"""The engine that the command line drives: an RLlib algorithm built from a run's configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from oneiros.platform.config import RunConfig
from oneiros.platform.engine.algorithm import DreamerV3, WorldModelAlgorithm
from oneiros.platform.engine.config import DreamerV3Config, WorldModelConfig
from oneiros.platform.rollout import EvaluationResult
from oneiros.platform.training.compiling import settle_compile
from oneiros.platform.training.engine import Videos


class RLlibEngine:
    """Runs a ``RunConfig`` on Ray: on the cluster that there is an address of, or on one of its own on this machine."""

    def __init__(self, config: RunConfig) -> None:
        """Raises ``ConfigError``, the registry's errors, and ``UnsupportedSpace``."""
        self.config = config
        settings = algorithm_config(config)
        settings.validate()
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            # More runners than processors are the user's to choose; Ray would wait for processors to appear.
            processes = config.num_runners + config.num_learners
            ray.init(
                num_cpus=max(os.cpu_count() or 1, processes) if "RAY_ADDRESS" not in os.environ else None,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
        try:
            settings.learners(num_gpus_per_learner=gpus_per_learner(config, ray.cluster_resources().get("GPU", 0.0)))
            algorithm = settings.build_algo()
            assert isinstance(algorithm, WorldModelAlgorithm)
            self.algorithm = algorithm
        except BaseException:
            self._shut_down()
            raise

    @property
    def env_steps(self) -> int:
        """Policy steps taken so far."""
        return self.algorithm.env_steps

    def step(self) -> dict[str, float]:
        """Run one RLlib iteration and return our metrics of it; raises ``TrainingDiverged`` and ``LearnerDied``."""
        self.algorithm.train()
        return dict(self.algorithm.newest_metrics)

    def hurry(self) -> None:
        """Have ``step`` return after the next update, or without waiting for another with env runners."""
        self.algorithm.hurry()

    def save(self, path: Path) -> None:
        """Write a checkpoint; raises ``CheckpointWriteError``."""
        self.algorithm.save_to_path(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, of any number of runners and learners; raises ``CheckpointError``."""
        self.algorithm.restore_from_path(path)

    def begin_from(self, checkpoint: Path, reset: Sequence[str]) -> None:
        """Take over what the agent of another run has learnt; raises ``CheckpointError`` and ``ConfigError``."""
        self.algorithm.begin_from(checkpoint, reset)

    def prefill(self, place: str) -> None:
        """Put the episodes of a data set into the replay; raises ``DataError``."""
        self.algorithm.prefill(place)

    def evaluate(self, episodes: int, seed: int) -> EvaluationResult:
        """Play whole episodes in environments of their own."""
        return self.algorithm.play(episodes, seed)

    def videos(self) -> Videos:
        """Return open-loop predictions beside what really happened."""
        return self.algorithm.videos()

    def close(self) -> None:
        """End the algorithm's processes, and Ray if this engine started it."""
        self.algorithm.stop()
        self._shut_down()

    def _shut_down(self) -> None:
        if self._started_ray:
            ray.shutdown()


def gpus_per_learner(run: RunConfig, there: float) -> int:
    """Return how many GPUs each learner process asks for, where the cluster has ``there`` so far.

    Ray hides them from a process that asks for none. A learner in this process sees what this process does.
    """
    if run.num_learners == 0 or run.device == "cpu":
        return 0
    # A cluster that grows may bring those that are asked for by name.
    return int(run.device != "auto" or there >= run.num_learners)


def algorithm_config(run: RunConfig) -> WorldModelConfig:
    """Return the RLlib config that means the same as ``run``."""
    settings = DreamerV3Config(DreamerV3) if run.agent == "dreamerv3" else WorldModelConfig(agent=run.agent)
    hyper: dict[str, Any] = settle_compile(run)
    return (
        settings.environment(run.env, env_config=dict(run.env_options))
        .env_runners(
            num_env_runners=run.num_runners,
            num_envs_per_env_runner=run.num_envs_per_runner,
            vectorization=run.vectorization,
            inference=run.inference,
        )
        .evaluation(evaluation_config={"env_config": dict(run.evaluation.env_options)})
        .learners(num_learners=run.num_learners)
        .training(
            train_ratio=run.train_ratio,
            learning_starts=run.learning_starts,
            random_steps=run.random_steps,
            device=run.device,
            **hyper,
        )
        .replay(
            capacity=run.replay.capacity,
            directory=str(run.directory / "replay") if run.replay.on_disk and run.run_dir is not None else None,
            online=run.replay.online,
            mixture=dict(run.replay.mixture),
            latent_stride=run.replay.latent_stride,
        )
        .fault_tolerance(
            recovery_directory=str(run.directory / "recovery") if run.num_learners and run.run_dir else None,
            **run.fault_tolerance.model_dump(),
        )
        .debugging(seed=run.seed)
    )

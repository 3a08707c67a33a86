"""RLlib algorithms for agents that learn world models: RLlib's shell, our loop."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pyarrow.fs
from oneiros.platform.checkpoint import (
    CheckpointError,
    Description,
    Manifest,
    open_checkpoint,
    read_manifest,
    read_tree,
    require_algorithm,
    require_spaces,
    write_checkpoint,
    write_tree,
)
from oneiros.platform.engine.config import DreamerV3Config, WorldModelConfig
from oneiros.platform.engine.evaluation import play_on_runners
from oneiros.platform.engine.flow import Flow
from oneiros.platform.engine.learner_calls import LearnerCalls, LearnerDied
from oneiros.platform.engine.supervisor import Supervisor
from oneiros.platform.training.agents import agent_name
from oneiros.platform.training.engine import EvaluationResult, Videos
from oneiros.platform.training.loop import Loop
from oneiros.platform.training.policy_file import save_policy
from oneiros.platform.training.rates import Rates
from oneiros.platform.training.ratio import TrainRatio
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Checkpoint
from ray.tune.trainable.trainable import _DICT_CHECKPOINT_FILE_NAME

log = logging.getLogger(__name__)

Path_ = str | Path | Checkpoint


class WorldModelAlgorithm(Algorithm):
    """Any ``oneiros.algorithms.contract.Agent`` as an RLlib algorithm.

    Without env runners it is ``training.Loop``: one process, one thread, repeatable. With them it is ``Flow``:
    runners and learners work at the same time, and the driver moves references between them.

    Checkpoints are ours (``oneiros.platform.checkpoint``): nothing of one is ever unpickled, so load them with this
    class or a subclass, not with RLlib's ``Algorithm``, which looks for a pickle.
    """

    config: WorldModelConfig
    loop: Loop | None = None
    flow: Flow | None = None

    # ---- life --------------------------------------------------------------------------------------------------------

    @classmethod
    def get_default_config(cls) -> WorldModelConfig:
        """Return a config whose agent is still to be named."""
        return WorldModelConfig(cls)

    def setup(self, config: WorldModelConfig) -> None:
        """Build runners and learners (RLlib does) and the loop between them."""
        super().setup(config)
        config = self.config
        self._rates = Rates()
        self._supervisor = Supervisor(config, self._write)
        self.newest_metrics: dict[str, float] = {}
        self.calls = LearnerCalls(self.learner_group, config.learner_threads)
        if self.env_runner_group.num_remote_env_runners():
            self.flow = Flow(config, self.env_runner_group, self.calls)
            self.flow.publish()
            self._save_for_recovery()
        else:
            learner = self.learner_group._learner
            self.env_runner.act_with(learner.agent)
            self.loop = Loop(
                learner.core,
                self.env_runner,
                TrainRatio(config.train_ratio, config.rows_per_update()),
                fragment=config.fragment_length(),
                learning_starts=config.learning_starts,
            )

    def cleanup(self) -> None:
        """End everything that was started."""
        if hasattr(self, "calls"):
            self.calls.close()
        super().cleanup()

    # ---- training ----------------------------------------------------------------------------------------------------

    def training_step(self) -> None:
        """Train for one iteration: a fixed number of steps without env runners, about a second with them."""
        if self.loop is not None:
            self.loop.run(steps=self.config.iteration_steps())
            metrics = self.loop.metrics()
        else:
            metrics = self._overlap()
        metrics |= self._rates.per_second({name: metrics[name] for name in ("env_steps", "updates")})
        self.newest_metrics = metrics
        self._log(metrics)

    def _overlap(self) -> dict[str, float]:
        """Collect and learn for about a second; a learner that dies is replaced."""
        assert self.flow is not None
        try:
            self.flow.pump(self.config.min_time_s_per_iteration or 1.0)
            self._save_for_recovery()
        except LearnerDied as death:
            self._rebuild_learners(death)
        metrics = self.flow.metrics()
        metrics["faults/env_runner_restarts"] = self.env_runner_group.num_remote_worker_restarts()
        metrics["faults/learner_restarts"] = self._supervisor.restarts
        return metrics

    def _rebuild_learners(self, death: LearnerDied) -> None:
        """Go on with new learners: weights from the last saved state, the run's counters as they are."""
        assert self.flow is not None and self.learner_group is not None
        self.calls.drop()
        self.learner_group, self.calls, state, updates = self._supervisor.rebuild(
            self.learner_group, self._build_learners, death
        )
        self.flow.learners = self.calls
        self.flow.relearn_from(state, updates)
        self.flow.publish()

    def _save_for_recovery(self) -> None:
        if self._supervisor.due:
            self._drain()
            self._supervisor.save(self.env_steps)

    def _build_learners(self) -> LearnerGroup:
        spec = self.config.get_multi_rl_module_spec(spaces=self.spaces)
        return self.config.build_learner_group(rl_module_spec=spec)

    @property
    def env_steps(self) -> int:
        """Policy steps taken so far, over all environments and all resumptions."""
        loop = self.loop or self.flow
        return loop.env_steps if loop is not None else 0

    @property
    def updates(self) -> int:
        """Updates that the agent has taken."""
        if self.loop is not None:
            return self.loop.core.updates
        return self.flow.updates if self.flow is not None else 0

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """Take runners that Ray has restarted back into service; their weights come with the next request."""
        restored: list[int] = env_runner_group.probe_unhealthy_env_runners()
        return restored

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's additions to a result, with a config that was not copied in depth each time."""
        debug_metrics_only = kwargs.get("debug_metrics_only", False)
        frozen, self.config = self.config, _NoConfig()
        try:
            filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **kwargs)
        finally:
            self.config = frozen
        if not debug_metrics_only:
            if not hasattr(self, "_config_dict"):
                self._config_dict = self.config.to_dict()
            filled["config"] = self._config_dict
        return filled

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Log our names as they are, and the few that RLlib and Tune users look for under theirs."""
        for name, value in metrics.items():
            self.metrics.log_value(name, value, reduce="mean", window=1)
        theirs = {
            "episode_return_mean": "return",
            "episode_return_min": "return_min",
            "episode_return_max": "return_max",
            "episode_len_mean": "length",
            "num_episodes_lifetime": "episodes",
            NUM_ENV_STEPS_SAMPLED_LIFETIME: "env_steps",
        }
        for their, our in theirs.items():
            if our in metrics:
                self.metrics.log_value((ENV_RUNNER_RESULTS, their), metrics[our], reduce="mean", window=1)

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Play ``evaluation_duration`` episodes with the policy's best actions; returns RLlib's names."""
        self._callback("on_evaluate_start")
        result = self.play(int(self.config.evaluation_duration), seed=(self.config.seed or 0) + 1_000_000)
        results = {
            ENV_RUNNER_RESULTS: {
                "episode_return_mean": result.return_mean,
                "episode_return_std": result.return_std,
                "episode_return_min": min(result.returns),
                "episode_return_max": max(result.returns),
                "episode_len_mean": result.length_mean,
                "num_episodes": result.episodes,
            }
        }
        self._callback("on_evaluate_end", evaluation_metrics=results)
        return results

    def play(self, episodes: int, seed: int) -> EvaluationResult:
        """Play whole ``episodes`` on the evaluation runners, or here if there are none; training is not disturbed."""
        group = self.eval_env_runner_group
        if group is not None and group.num_healthy_remote_env_runners():
            parts = play_on_runners(group, episodes, seed, self._newest_weights())
        else:
            parts = [self.env_runner.play(episodes, seed, self._newest_weights())]
        return EvaluationResult.join(parts, self.env_steps)

    def videos(self) -> Videos:
        """Return open-loop predictions of replayed sequences beside what happened; nothing before there are any."""
        self._drain()
        report = self.calls.call("report")[0]
        return {name: video.cpu().numpy() for name, video in report.items() if name.startswith("openloop/")}

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def save_to_path(
        self, path: str | Path | None = None, *, filesystem: pyarrow.fs.FileSystem | None = None, **kwargs: Any
    ) -> str:
        """Write a whole checkpoint, or none, and return its path; raises ``CheckpointWriteError``."""
        path = str(path or Path(tempfile.mkdtemp()) / "checkpoint")
        self._drain()
        if filesystem is None and "://" not in path:
            write_checkpoint(Path(path).absolute(), self._write)
            self._supervisor.saved(Path(path).absolute())
            return path
        if filesystem is None:
            filesystem, inside = pyarrow.fs.FileSystem.from_uri(path)
        else:
            inside = path
        with tempfile.TemporaryDirectory() as local:
            write_checkpoint(Path(local) / "checkpoint", self._write)
            pyarrow.fs.copy_files(str(Path(local) / "checkpoint"), inside, destination_filesystem=filesystem)
        return path

    def restore_from_path(
        self, path: Path_, component: str | None = None, filesystem: pyarrow.fs.FileSystem | None = None, **kwargs: Any
    ) -> None:
        """Go on from a checkpoint, of any number of runners and learners; raises ``CheckpointError``."""
        if component is not None:
            raise CheckpointError(f"a part of a checkpoint ({component}) cannot be restored by itself, only all of it")
        with _local(path, filesystem) as directory:
            manifest = open_checkpoint(directory)
            require_algorithm(manifest, directory, agent_name(self.config.agent))
            require_spaces(manifest, directory, *self._spaces())
            self._drain()
            learners = manifest.counters["learners"]
            arguments = {"directory": str(directory), "learners": learners}
            self.calls.call("load", [arguments] * self.calls.learners)
            state = read_tree(directory / "loop")
            if self.loop is not None:
                self.loop.load_state_dict(state)
                if (directory / "rollout.json").is_file():
                    self.env_runner.load_state_dict(read_tree(directory / "rollout"))
            else:
                assert self.flow is not None
                self.flow.load_state_dict(state, manifest.counters["updates"])
                self.flow.publish()
            self._iteration = manifest.counters.get("iterations", 0)

    @classmethod
    def from_checkpoint(
        cls,
        path: Path_,
        filesystem: pyarrow.fs.FileSystem | None = None,
        *,
        config: WorldModelConfig | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the algorithm that wrote a checkpoint and go on from there.

        ``config`` replaces the checkpoint's own: other runners and learners, another device, or an environment or an
        agent that was given as a class, which no checkpoint holds. Raises ``CheckpointError``.
        """
        with _local(path, filesystem) as directory:
            manifest = read_manifest(directory)
            if config is None:
                config = cls.get_default_config().from_json(_engine_config(manifest, directory))
            algorithm: Self = config.build_algo()
            try:
                algorithm.restore_from_path(directory)
            except BaseException:
                algorithm.stop()
                raise
        return algorithm

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from what ``save`` returned; refuses a directory with a pickle that Tune would load."""
        checkpoint = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        with _local(checkpoint, None) as directory:
            if (directory / _DICT_CHECKPOINT_FILE_NAME).exists():
                raise CheckpointError(f"{directory} is not a checkpoint of ours: it holds {_DICT_CHECKPOINT_FILE_NAME}")
        super().restore(checkpoint_path)

    def _write(self, directory: Path) -> Description:
        self.calls.call("save", [{"directory": str(directory)}] * self.calls.learners)
        save_policy(self.calls.call("policy_state")[0], directory)
        loop = self.loop or self.flow
        assert loop is not None
        write_tree(directory / "loop", loop.state_dict())
        if self.loop is not None:
            write_tree(directory / "rollout", self.env_runner.state_dict())
        observation_space, action_space = self._spaces()
        return Description(
            algorithm=agent_name(self.config.agent),
            hyperparameters=self.config.hyperparameters().model_dump(mode="json"),
            counters={
                "env_steps": loop.env_steps,
                "updates": self.updates,
                "episodes": loop.episodes.count,
                "learners": self.calls.learners,
                "iterations": self.iteration,
            },
            observation_space=observation_space,
            action_space=action_space,
            config={"rllib": self.config.to_json()},
            score=loop.episodes.mean_return,
        )

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        if self.flow is not None:
            self.flow.drain()

    def _newest_weights(self) -> Any:
        if self.flow is not None:
            return [self.flow.publish()]
        return self.calls.call("policy_state")[0]

    def _spaces(self) -> tuple[Any, Any]:
        return self.spaces["__env_single__"]

    def _callback(self, name: str, **kwargs: Any) -> None:
        make_callback(
            name,
            self.callbacks,
            getattr(self.config, f"callbacks_{name}"),
            kwargs={"algorithm": self, "metrics_logger": self.metrics, **kwargs},
        )


class DreamerV3(WorldModelAlgorithm):
    """DreamerV3 (Nature 2025) as an RLlib algorithm; see ``DreamerV3Config``."""

    @classmethod
    def get_default_config(cls) -> DreamerV3Config:
        """Return DreamerV3's config."""
        return DreamerV3Config(cls)


class _NoConfig(dict[str, Any]):
    """Stands in for the config where RLlib would copy all of it."""


@contextmanager
def _local(path: Path_, filesystem: pyarrow.fs.FileSystem | None) -> Iterator[Path]:
    """The checkpoint as a local directory, downloaded if need be."""
    if not isinstance(path, Checkpoint):
        path = Checkpoint(str(path), filesystem=filesystem)
    with path.as_directory() as directory:
        yield Path(directory)


def _engine_config(manifest: Manifest, directory: Path) -> dict[str, Any]:
    if "rllib" not in manifest.config:
        raise CheckpointError(
            f"{directory} was not written by RLlib's engine; pass config= with the run's settings to load it here"
        )
    values: dict[str, Any] = manifest.config["rllib"]
    if values["env"] is None:
        raise CheckpointError(
            f"{directory} was trained in an environment class that it cannot hold; pass config= with that environment"
        )
    return values

"""RLlib algorithms for agents that learn world models: RLlib's shell, our loop."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import ray
from gymnasium import spaces
from oneiros.platform.checkpoint import (
    CheckpointError,
    Description,
    open_checkpoint,
    read_manifest,
    read_tree,
    require_algorithm,
    require_spaces,
    write_tree,
)
from oneiros.platform.engine import runners
from oneiros.platform.engine.checkpoints import FileSystem, Location, config_of, local_copy, write_to
from oneiros.platform.engine.config import ENV_SPACES, DreamerV3Config, WorldModelConfig
from oneiros.platform.engine.env_runner import WorldModelEnvRunner
from oneiros.platform.engine.evaluation import play_on_runners
from oneiros.platform.engine.flow import Flow
from oneiros.platform.engine.inference import Place, start_inference
from oneiros.platform.engine.learner import WorldModelLearner
from oneiros.platform.engine.learner_calls import LearnerDied
from oneiros.platform.engine.supervisor import Supervisor
from oneiros.platform.engine.torch_flags import kept_torch_flags
from oneiros.platform.engine.transfer import load_parts, save_parts
from oneiros.platform.rollout import EvaluationResult
from oneiros.platform.training.agents import agent_name
from oneiros.platform.training.engine import Videos
from oneiros.platform.training.fine_tuning import read_learnt
from oneiros.platform.training.loop import Loop
from oneiros.platform.training.policy_file import save_policy
from oneiros.platform.training.rates import Rates
from oneiros.platform.training.ratio import TrainRatio
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

log = logging.getLogger(__name__)

RLLIB_NAMES = {
    "episode_return_mean": "return",
    "episode_return_min": "return_min",
    "episode_return_max": "return_max",
    "episode_len_mean": "length",
    "num_episodes_lifetime": "episodes",
    NUM_ENV_STEPS_SAMPLED_LIFETIME: "env_steps",
}
"""What RLlib and Tune users look for under ``env_runners``, and our name of it."""

Result = TypeVar("Result")


class WorldModelAlgorithm(Algorithm):
    """Any ``oneiros.algorithms.contract.Agent`` as an RLlib algorithm.

    Without env runners it is ``training.Loop``: one process, one thread, repeatable. With them it is ``Flow``:
    runners and learners work at the same time, and the driver moves references between them.

    Checkpoints are ours (``oneiros.platform.checkpoint``): nothing of one is ever unpickled, so load them with this
    class or a subclass, not with RLlib's ``Algorithm``, which looks for a pickle.
    """

    config: WorldModelConfig
    env_runner_group: EnvRunnerGroup
    learner_group: LearnerGroup

    # ---- life --------------------------------------------------------------------------------------------------------

    @classmethod
    def get_default_config(cls) -> WorldModelConfig:
        """Return a config whose agent is still to be named."""
        return WorldModelConfig(cls)

    def setup(self, config: Any) -> None:
        """Build runners and learners (RLlib does) and the loop between them."""
        self._warn_of_missing_cpus()
        with kept_torch_flags():
            super().setup(config)
        self.newest_metrics: dict[str, float] = {}
        self._supervisor = Supervisor(self.config, self._write)
        self.calls = self._supervisor.call(self.learner_group)
        self.loop: Loop | None = None
        self.flow: Flow | None = None
        self._inference_place: Place | None = None
        self._rates = Rates()
        if self.env_runner_group.num_remote_env_runners():
            self.flow = Flow(self.config, self.env_runner_group, self.calls)
            self._place_inference()
            self.flow.publish()
            self._save_for_recovery()
        else:
            self.loop = self._build_loop()

    def _warn_of_missing_cpus(self) -> None:
        """Ray waits without a word for processors that do not exist."""
        config = self.config
        per_learner = 1.0 if config.num_cpus_per_learner == "auto" else float(config.num_cpus_per_learner)
        needed = config.num_env_runners * config.num_cpus_per_env_runner + config.num_learners * per_learner
        if needed and ray.is_initialized() and needed > (there := ray.cluster_resources().get("CPU", 0)):
            log.warning(
                "%d env runners and %d learners need %g processors, and Ray has %g: training waits for more nodes; "
                "or set num_cpus_per_env_runner or num_cpus_per_learner lower",
                *(config.num_env_runners, config.num_learners, needed, there),
            )

    def _build_loop(self) -> Loop:
        learner = self.learner_group._learner
        assert isinstance(learner, WorldModelLearner)
        self.local_runner.act_with(learner.agent)
        return Loop(
            learner.core,
            self.local_runner,
            TrainRatio(self.config.train_ratio, self.config.rows_per_update()),
            fragment=self.config.fragment_length(),
            learning_starts=self.config.learning_starts,
        )

    def stop(self) -> None:
        """End all processes and threads, and close environments."""
        super().stop()  # type: ignore[no-untyped-call]

    def cleanup(self) -> None:
        """See ``stop``; RLlib calls this."""
        if hasattr(self, "calls"):
            self.calls.close()
        for group in (getattr(self, "env_runner_group", None), getattr(self, "eval_env_runner_group", None)):
            if group is not None:
                runners.end(group)
        if getattr(self, "flow", None) is not None:
            self._end_inference()
        super().cleanup()

    # ---- training ----------------------------------------------------------------------------------------------------

    def train(self) -> dict[str, Any]:
        """Run one iteration and return RLlib's result, in which our metrics stand under their own names."""
        result: dict[str, Any] = super().train()  # type: ignore[no-untyped-call]
        return result

    def training_step(self) -> None:
        """Train for one iteration: a fixed number of steps without env runners, about a second with them.

        Raises ``TrainingDiverged``, ``EnvRunnersBroken``, or ``LearnerDied`` where a learner cannot be replaced.
        """
        if self.loop is not None:
            self.loop.run(steps=self.config.iteration_steps())
            metrics = self.loop.metrics()
        else:
            metrics = self._overlap()
        metrics |= self._rates.per_second({name: metrics[name] for name in ("env_steps", "updates")})
        self.newest_metrics = metrics
        self._log(metrics)

    def _overlap(self) -> dict[str, float]:
        """Collect and learn at the same time for about a second; a learner that dies is replaced."""
        self._with_learners(self._pump)
        return {
            **self._flow.metrics(),
            "faults/env_runner_restarts": self.env_runner_group.num_remote_worker_restarts(),
            "faults/learner_restarts": self._supervisor.restarts,
            "faults/recovery_saves_failed": self._supervisor.failed_saves,
        }

    def hurry(self) -> None:
        """Have ``train`` return as soon as may be; from a signal's handler too."""
        if self.loop is not None:
            self.loop.hurry()
        elif self.flow is not None:
            self.flow.hurry()

    def _pump(self) -> None:
        self._flow.pump(self.config.min_time_s_per_iteration or 1.0)
        self._end_silent_runners()
        self._save_for_recovery()

    def _with_learners(self, action: Callable[[], Result]) -> Result:
        """Do what needs learners; where one dies meanwhile, they are replaced, and it is done again."""
        while True:
            try:
                return action()
            except LearnerDied as death:
                if self.flow is None:
                    raise
                self._replace_learners(death)

    def _end_silent_runners(self) -> None:
        """End runners that hang; Ray starts them again."""
        if self.config.env_runner_timeout_s is None:
            return
        for runner in self._flow.silent(self.config.env_runner_timeout_s):
            if not self._flow.faults.get("env_runners_hung"):
                log.warning("env runner %d says nothing and is started again; further ones are only counted", runner)
            self._flow.count_fault("env_runners_hung")
            ray.kill(self.env_runner_group._worker_manager.actors()[runner], no_restart=False)

    def _replace_learners(self, death: LearnerDied) -> None:
        """Go on with new learners: weights from the last saved state, the run's counters as they are."""
        assert self.flow is not None
        while True:
            self.calls.drop()
            self.learner_group, self.calls, state, updates = self._supervisor.rebuild(
                self.learner_group, self._build_learners, death
            )
            self.flow.learners = self.calls
            self.flow.relearn_from(state, updates)
            try:
                self._place_inference()
                self.flow.publish()
                return
            except LearnerDied as again:
                death = again

    def _place_inference(self) -> None:
        """Have somebody act for the runners where the learners are, if that is wanted."""
        if self.config.inference == "runner":
            return
        place = self.calls.call("place")[0]
        if place != self._inference_place:
            self._end_inference()
            self._flow.server, self._inference_place = start_inference(self.config, self._env_spaces(), place), place

    def _end_inference(self) -> None:
        if self._flow.server is not None:
            ray.kill(self._flow.server)

    def _build_learners(self) -> LearnerGroup:
        spec = self.config.get_multi_rl_module_spec(spaces=self.spaces)
        return self.config.build_learner_group(rl_module_spec=spec)

    def _save_for_recovery(self) -> None:
        # Whoever is in a hurry is about to save for good.
        if self._supervisor.due and not self._flow.hurried:
            self._drain()
            self._supervisor.save(self.env_steps)

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """See ``runners.take_back``; RLlib calls this."""
        return runners.take_back(env_runner_group)

    @property
    def env_steps(self) -> int:
        """Policy steps taken so far, over all environments and all resumptions."""
        return self.loop.env_steps if self.loop is not None else self._flow.env_steps

    @property
    def updates(self) -> int:
        """Updates that the agent has taken."""
        return self.loop.core.updates if self.loop is not None else self._flow.updates

    @property
    def local_runner(self) -> WorldModelEnvRunner:
        """The runner in this process: without remote ones the one that collects, else one without environments."""
        runner = self.env_runner
        assert isinstance(runner, WorldModelEnvRunner)
        return runner

    # ---- results -----------------------------------------------------------------------------------------------------

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's additions to a result; the config in it is made once, not copied in depth each time."""
        config, self.config = self.config, {}  # type: ignore[assignment]
        try:
            filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **kwargs)
        finally:
            self.config = config
        if "config" in filled:
            if not hasattr(self, "_config_in_results"):
                self._config_in_results = self.config.to_dict()
            filled["config"] = self._config_in_results
        return filled

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Log our names as they are, and the few that RLlib and Tune users look for under theirs."""
        assert self.metrics is not None
        for name, value in metrics.items():
            self.metrics.log_value(name, value, reduce="mean", window=1)
        for theirs, ours in RLLIB_NAMES.items():
            if ours in metrics:
                self.metrics.log_value((ENV_RUNNER_RESULTS, theirs), metrics[ours], reduce="mean", window=1)

    # ---- beginnings --------------------------------------------------------------------------------------------------

    def begin_from(self, checkpoint: Path, reset: Sequence[str] = ()) -> None:
        """Take over what the agent of another run has learnt, but for the parts ``reset``; for a new algorithm.

        Raises ``CheckpointError``, and ``ConfigError`` for an unknown part.
        """
        self._drain()
        given = {"learnt": read_learnt(checkpoint), "reset": list(reset)}
        self.calls.call("begin_from", [given] * self.calls.learners)
        if self.flow is not None:
            self.flow.publish()
            if self._supervisor.keeps:
                self._supervisor.save(self.env_steps)

    def prefill(self, place: str) -> None:
        """Put the episodes of a data set into the replay; raises ``DataError``."""
        self._drain()
        self.calls.call("prefill", [{"place": place}] * self.calls.learners, patient=True)

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Play ``evaluation_duration`` episodes with the policy's best actions; returns RLlib's names."""
        self._callback("on_evaluate_start")
        seed = (self.config.seed or 0) + 1_000_000
        in_parallel = parallel_train_future is not None
        result = self._play(int(self.config.evaluation_duration), seed, self._weights(in_parallel))
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
        """Play whole ``episodes`` on the evaluation runners, on all others where there are none of these, or here.

        Training is not disturbed. Raises ``RuntimeError`` when the environments hang everywhere.
        """
        return self._play(episodes, seed, self._weights())

    def _play(self, episodes: int, seed: int, weights: Any) -> EvaluationResult:
        # An environment that hangs takes its process along: better that of a runner than this one.
        for group in (self.eval_env_runner_group, self.env_runner_group):
            if group is not None and group.num_remote_env_runners():
                self.restore_env_runners(group)
                if group.num_healthy_remote_env_runners():
                    parts = play_on_runners(group, episodes, seed, weights)
                    break
        else:
            parts = [self.local_runner.play(episodes, seed, weights)]
        return EvaluationResult.join(parts, self.env_steps)

    def videos(self) -> Videos:
        """Return open-loop predictions of replayed sequences beside what happened; nothing before there are any."""
        report = self._with_learners(self._report)
        return {name: video.cpu().numpy() for name, video in report.items() if video.ndim == 4}

    def _report(self) -> dict[str, Any]:
        self._drain()
        report: dict[str, Any] = self.calls.call("report")[0]
        return report

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def save_to_path(
        self, path: str | Path | None = None, *, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> str:
        """Write a whole checkpoint, or none, and return its path; raises ``CheckpointWriteError``."""
        path = path or Path(tempfile.mkdtemp()) / "checkpoint"
        directory = self._with_learners(lambda: self._save(path, filesystem))
        if directory is not None:
            self._supervisor.saved(directory)
        return str(path)

    def restore_from_path(
        self, path: Location, component: str | None = None, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> None:
        """Go on from a checkpoint, of any number of runners and learners; raises ``CheckpointError``."""
        if component is not None:
            raise CheckpointError(f"a part of a checkpoint ({component}) cannot be restored by itself, only all of it")
        with local_copy(path, filesystem) as directory:
            manifest = open_checkpoint(directory)
            require_algorithm(manifest, directory, agent_name(self.config.agent))
            require_spaces(manifest, directory, *self._env_spaces())
            self._drain()
            load_parts(self.calls, "load", directory, manifest.counters["learners"])
            state = read_tree(directory / "loop")
            if self.loop is not None:
                self.loop.load_state_dict(state)
                rollout = read_tree(directory / "rollout") if (directory / "rollout.json").is_file() else None
                if rollout is None or not self.local_runner.load_state_dict(rollout):
                    self.loop.core.break_streams()
                    self.local_runner.begin_at(self.loop.env_steps)
            elif self.flow is not None:
                self.flow.load_state_dict(state, manifest.counters["updates"])
                self.flow.publish()
                if self._supervisor.keeps:
                    # What there was to go back to is of before.
                    self._supervisor.save(self.env_steps)
            self._iteration = manifest.counters.get("iterations", 0)
            self._rates = Rates()

    @classmethod
    def from_checkpoint(
        cls,
        path: Location,
        filesystem: FileSystem | None = None,
        *,
        config: WorldModelConfig | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the algorithm that wrote a checkpoint and go on from there.

        ``config`` replaces the checkpoint's own: other runners and learners, another device, or an environment or an
        agent that was given as a class, which no checkpoint holds. Raises ``CheckpointError``.
        """
        with local_copy(path, filesystem) as directory:
            manifest = read_manifest(directory)
            if config is None:
                config = cls.get_default_config().from_json(config_of(manifest, directory))
            algorithm = config.build_algo()
            assert isinstance(algorithm, cls)
            try:
                algorithm.restore_from_path(directory)
            except BaseException:
                algorithm.stop()
                raise
        return algorithm

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from what ``save`` returned, or from a path or a checkpoint of Tune's; raises ``CheckpointError``."""
        # Tune looks for a pickle of its own in the directory first; a directory that has one never gets that far.
        with local_copy(getattr(checkpoint_path, "checkpoint", checkpoint_path)):
            super().restore(checkpoint_path)

    def _save(self, path: str | Path, filesystem: FileSystem | None) -> Path | None:
        self._drain()
        return write_to(path, filesystem, self._write)

    def _write(self, directory: Path) -> Description:
        updates = save_parts(self.calls, directory)
        save_policy(self.calls.call("policy_state")[0], directory)
        run = self.loop if self.loop is not None else self._flow
        write_tree(directory / "loop", run.state_dict())
        if self.loop is not None:
            write_tree(directory / "rollout", self.local_runner.state_dict())
        observation_space, action_space = self._env_spaces()
        return Description(
            algorithm=agent_name(self.config.agent),
            hyperparameters=self.config.hyperparameters().model_dump(mode="json"),
            counters={
                "env_steps": run.env_steps,
                "updates": updates,
                "episodes": run.episodes.count,
                "learners": self.calls.learners,
                "iterations": self.iteration,
            },
            observation_space=observation_space,
            action_space=action_space,
            config={"rllib": self.config.to_json()},
            score=run.episodes.mean_return,
        )

    # ---- inside ------------------------------------------------------------------------------------------------------

    @property
    def _flow(self) -> Flow:
        assert self.flow is not None
        return self.flow

    def _drain(self) -> None:
        if self.flow is not None:
            self.flow.drain()

    def _weights(self, training_runs: bool = False) -> Any:
        """The newest policy weights; those that the runners have, if training goes on in another thread meanwhile."""
        if self.flow is None:
            return self.calls.call("policy_state")[0]
        return self.flow.published if training_runs else self._with_learners(self.flow.publish)

    def _env_spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        assert self.spaces is not None
        observation_space, action_space = self.spaces[ENV_SPACES]
        return observation_space, action_space

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

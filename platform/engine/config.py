"""The fluent configs that users import: RLlib's ``AlgorithmConfig``, for agents that learn world models."""

from __future__ import annotations

import difflib
import math
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from gymnasium import spaces
from oneiros.envs.registry import Vectorization
from oneiros.platform.config import ConfigError
from oneiros.platform.engine.kept import KEPT
from oneiros.platform.training.agents import AgentName, agent_class, agent_name, hyperparameters
from oneiros.platform.training.pace import fragment_length, iteration_steps
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.utils.from_config import NotProvided
from ray.util import log_once

ENV_SPACES = "__env_single__"
"""Where RLlib's dictionaries of spaces keep those of one environment."""

_FROM_TUNE = frozenset({"class", "lambda", "input", "multiagent", "policies"})
"""Keys of RLlib's and Tune's own that mean nothing here but come through ``update_from_dict``."""


class WorldModelConfig(AlgorithmConfig):
    """Config of any agent that fulfils ``oneiros.algorithms.contract.Agent``.

    ``agent`` is an entry point of the group ``oneiros.algorithms``, ``module:Class``, or a class. Its own settings go
    through ``training()`` by their names, and are validated together with everything RLlib leaves unchecked: typos,
    negative counts, batches that cannot be shared by the learners.

    With ``num_env_runners=0`` everything runs in one process and repeats exactly, given a seed. With runners,
    collection and learning overlap, and ``train_ratio`` alone decides who waits for whom.
    """

    env_runner_cls: Any
    seed: Any
    rollout_fragment_length: Any
    merge_env_runner_states: Any

    def __init__(self, algo_class: type | None = None, agent: AgentName = "dreamerv3") -> None:
        from oneiros.platform.engine.algorithm import WorldModelAlgorithm
        from oneiros.platform.engine.env_runner import WorldModelEnvRunner

        super().__init__(algo_class=algo_class or WorldModelAlgorithm)
        self.agent = agent
        self.hyper: dict[str, Any] = {}
        self.train_ratio: float = 128.0
        self.learning_starts = 1_024
        self.random_steps = 0
        self.device = "auto"
        self.replay_capacity = 1_000_000
        self.replay_directory: str | None = None
        self.replay_online = True
        self.replay_mixture: dict[str, float] = {"uniform": 1.0}
        self.replay_latent_stride = 1
        self.vectorization: Vectorization = "sync"
        self.env_steps_per_iteration: int | None = None
        self.broadcast_interval_s = 0.25
        self.env_runner_threads = 1
        self.env_runner_timeout_s: float | None = 600.0
        self.inference: Literal["runner", "learner"] = "runner"
        self.inference_timeout_s = 120.0
        self.learner_threads: int | None = None
        self.learner_timeout_s: float | None = 1800.0
        self.most_nonfinite_updates = 50
        self.recovery_directory: str | None = None
        self.recovery_interval_s = 600.0
        self.most_learner_restarts = 3

        self.env_runner_cls = WorldModelEnvRunner
        self.rollout_fragment_length = "auto"
        self.num_env_runners = 0
        self.max_requests_in_flight_per_env_runner = 2
        self.restart_failed_env_runners = True
        self.delay_between_env_runner_restarts_s = 1.0
        self.num_consecutive_env_runner_failures_tolerance = 10
        self.evaluation_duration = 10
        # The runners carry no RLlib state: weights travel with each request to collect.
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False
        self._dont_auto_sync_env_runner_states = True

    # ---- what users call ---------------------------------------------------------------------------------------------

    def training(
        self,
        *,
        train_ratio: Any = NotProvided,
        learning_starts: Any = NotProvided,
        random_steps: Any = NotProvided,
        device: Any = NotProvided,
        env_steps_per_iteration: Any = NotProvided,
        broadcast_interval_s: Any = NotProvided,
        learner_threads: Any = NotProvided,
        most_nonfinite_updates: Any = NotProvided,
        **hyper: Any,
    ) -> Self:
        """Set how the agent learns.

        Args:
            train_ratio: Replayed steps per policy step.
            learning_starts: Policy steps before the first update.
            random_steps: Policy steps at the start whose actions are uniformly random.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; where the agent learns.
            env_steps_per_iteration: Policy steps that one ``train()`` takes without env runners; by default about
                eight updates' worth.
            broadcast_interval_s: Least seconds between two sets of new weights for the env runners.
            learner_threads: Processor threads of a learner; by default what the runners leave.
            most_nonfinite_updates: Skipped updates in a row after which training stops.
            hyper: The agent's own settings, such as ``size="1m"`` and ``learning_rate=1e-4``.

        Raises:
            ConfigError: for a name that is neither above nor one of the agent's settings.
        """
        given = {
            "train_ratio": train_ratio,
            "learning_starts": learning_starts,
            "random_steps": random_steps,
            "device": device,
            "env_steps_per_iteration": env_steps_per_iteration,
            "broadcast_interval_s": broadcast_interval_s,
            "learner_threads": learner_threads,
            "most_nonfinite_updates": most_nonfinite_updates,
        }
        known = self._hyper_names()
        for name in hyper:
            if name not in known:
                raise _unknown("training()", name, [*given, *known])
        self.hyper = {**self.hyper, **hyper}
        return self._take(given)

    def replay(
        self,
        *,
        capacity: Any = NotProvided,
        directory: Any = NotProvided,
        online: Any = NotProvided,
        mixture: Any = NotProvided,
        latent_stride: Any = NotProvided,
    ) -> Self:
        """Set what is remembered.

        Args:
            capacity: Rows kept, over all environments and learners; the oldest go first.
            directory: Where the rows are kept as memory-mapped files, which a killed process leaves whole; by default
                in memory.
            online: Whether fresh sequences fill the batch before older ones do.
            mixture: Shares of ``uniform``, ``priority``, ``curious`` and ``recency`` sampling; they sum to 1.
            latent_stride: Latents are kept of every k-th row, and sequences begin there.
        """
        given = {
            "replay_capacity": capacity,
            "replay_directory": directory,
            "replay_online": online,
            "replay_mixture": mixture,
            "replay_latent_stride": latent_stride,
        }
        return self._take(given)

    def env_runners(
        self,
        *,
        vectorization: Any = NotProvided,
        env_runner_threads: Any = NotProvided,
        inference: Any = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set RLlib's env runner options, and three of ours.

        Args:
            vectorization: ``sync``: a runner's environments share its process; ``async``: each has its own.
            env_runner_threads: Processor threads of a runner, or of whoever acts for all of them.
            inference: ``runner``: each acts with its own copy of the policy; ``learner``: they hold no model, and one
                process on the learner's device acts for all, which suits models too large to copy to every host.
            kwargs: RLlib's own, such as ``num_env_runners`` and ``num_envs_per_env_runner``.
        """
        super().env_runners(**kwargs)
        return self._take(
            {"vectorization": vectorization, "env_runner_threads": env_runner_threads, "inference": inference}
        )

    def fault_tolerance(
        self,
        *,
        env_runner_timeout_s: Any = NotProvided,
        learner_timeout_s: Any = NotProvided,
        inference_timeout_s: Any = NotProvided,
        recovery_directory: Any = NotProvided,
        recovery_interval_s: Any = NotProvided,
        most_learner_restarts: Any = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set RLlib's fault tolerance options, and ours for what RLlib does not restart.

        Args:
            env_runner_timeout_s: Seconds after which an env runner that was asked for a chunk and says nothing is
                ended and started again, also while it plays episodes of an evaluation; None waits for ever.
            learner_timeout_s: The same of a learner in a process of its own, which is replaced as one that died is.
            inference_timeout_s: Seconds after which the process that acts for all runners, if one does, is ended and
                started again because a runner got no answer.
            recovery_directory: Where the learners' state is saved now and then, to go on from when one dies; by
                default a dead learner ends the training.
            recovery_interval_s: Seconds between two such states.
            most_learner_restarts: Recoveries without a newly saved state in between after which a dead learner ends
                the training.
            kwargs: RLlib's own, such as ``restart_failed_env_runners``.
        """
        super().fault_tolerance(**kwargs)
        given = {
            "env_runner_timeout_s": env_runner_timeout_s,
            "learner_timeout_s": learner_timeout_s,
            "inference_timeout_s": inference_timeout_s,
            "recovery_directory": recovery_directory,
            "recovery_interval_s": recovery_interval_s,
            "most_learner_restarts": most_learner_restarts,
        }
        return self._take(given)

    def hyperparameters(self) -> Any:
        """Return the agent's validated ``Config``; raises ``ConfigError``."""
        return hyperparameters(self.agent, self.hyper)

    # ---- what RLlib calls --------------------------------------------------------------------------------------------

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        """Change what ``config_dict`` says; the agent's own settings may stand beside RLlib's.

        Raises ``ConfigError`` for a key that is neither, which RLlib would take without a word.
        """
        changes, hyper, own = {}, dict(self.hyper), vars(self)
        for key, value in config_dict.items():
            if key in _FROM_TUNE or key.startswith("__"):
                continue
            name = self._translate_special_keys(key, warn_deprecated=False)
            if name in own:
                if not _same(own[name], value):
                    changes[key] = value
            elif name in self._hyper_names():
                hyper[name] = value
            elif not hasattr(type(self), name):
                raise _unknown("the config", key, [*own, *self._hyper_names()], self._hyper_names())
        super().update_from_dict({"hyper": hyper, **changes} if hyper != self.hyper else changes)
        return self

    def validate(self) -> None:
        """Check what RLlib checks and what it does not; raises ``ConfigError`` (or RLlib's own ``ValueError``)."""
        # RLlib would tell users how to leave its new API stack, which this is made for.
        log_once(f"{getattr(self.algo_class, '__name__', self.algo_class)}_on_new_api_stack")
        if self.in_evaluation:
            super().validate()
            return
        _whole("num_env_runners", self.num_env_runners, 0)
        _whole("num_envs_per_env_runner", self.num_envs_per_env_runner, 1)
        _whole("num_learners", self.num_learners, 0)
        _whole("evaluation_num_env_runners", self.evaluation_num_env_runners, 0)
        _whole("learning_starts", self.learning_starts, 0)
        _whole("random_steps", self.random_steps, 0)
        _whole("env_runner_threads", self.env_runner_threads, 1)
        _whole("most_nonfinite_updates", self.most_nonfinite_updates, 1)
        _whole("most_learner_restarts", self.most_learner_restarts, 0)
        _whole("replay_capacity", self.replay_capacity, 1)
        _shares("replay_mixture", self.replay_mixture)
        if self.env_steps_per_iteration is not None:
            _whole("env_steps_per_iteration", self.env_steps_per_iteration, 1)
        if self.learner_threads is not None:
            _whole("learner_threads", self.learner_threads, 1)
        for name in ("env_runner_timeout_s", "learner_timeout_s"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name} is {seconds!r}; it must be above 0, or None.")
        if self.rollout_fragment_length != "auto":
            _whole("rollout_fragment_length", self.rollout_fragment_length, 1)
        if (
            isinstance(self.train_ratio, bool)
            or not isinstance(self.train_ratio, int | float)
            or not self.train_ratio > 0
        ):
            raise ConfigError(f"train_ratio is {self.train_ratio!r}; it must be a number of replayed steps above 0.")
        if self.vectorization not in ("sync", "async"):
            raise ConfigError(f"vectorization is {self.vectorization!r}; it must be sync or async.")
        self._check_inference()
        if self.evaluation_duration_unit != "episodes" or not isinstance(self.evaluation_duration, int):
            raise ConfigError(
                f"evaluation_duration is {self.evaluation_duration!r} {self.evaluation_duration_unit}; "
                "it must be a whole number of episodes."
            )
        if self.seed is None:
            # Every run can be repeated: what was drawn is in its checkpoints.
            self.seed = secrets.randbits(31)
        if self.env is None:
            raise ConfigError("no environment is set: call .environment('CartPole-v1') or another id.")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(self.device)):
            raise ConfigError(f"device is {self.device!r}; it must be auto, cpu, cuda or cuda:N.")
        hyper = self.hyperparameters()
        if hyper.batch_size % max(1, self.num_learners):
            raise ConfigError(
                f"batch_size is {hyper.batch_size}, which {self.num_learners} learners cannot share equally; "
                "make it a multiple of num_learners."
            )
        if self.num_env_runners == 0 and self.num_learners > 0:
            raise ConfigError(
                f"num_learners is {self.num_learners}, but num_env_runners is 0, which means one process: "
                "set num_env_runners to at least 1, or num_learners to 0."
            )
        if self.num_learners > 1 and not hasattr(agent_class(self.agent), "join"):
            raise ConfigError(
                f"num_learners is {self.num_learners}, but the agent {agent_name(self.agent)} learns alone: it is no "
                "oneiros.algorithms.contract.DistributedAgent."
            )
        if self.num_learners > self.num_env_runners > 0:
            raise ConfigError(
                f"num_learners is {self.num_learners}, but only {self.num_env_runners} env runners would feed them; "
                "each learner keeps the experience of env runners of its own."
            )
        # About a second an iteration where runs are timed; counted in steps where they must repeat exactly.
        if self.min_time_s_per_iteration is None and self.num_env_runners > 0:
            self.min_time_s_per_iteration = 1.0
        super().validate()

    def _check_inference(self) -> None:
        if self.inference not in ("runner", "learner"):
            raise ConfigError(f"inference is {self.inference!r}; it must be runner or learner.")
        if isinstance(self.inference_timeout_s, bool) or not self.inference_timeout_s > 0:
            raise ConfigError(f"inference_timeout_s is {self.inference_timeout_s!r}; it must be above 0.")
        if self.inference == "runner":
            return
        if self.num_env_runners == 0:
            raise ConfigError("inference is learner, but there are no env runners to act for: num_env_runners is 0.")
        if hasattr(agent_class(self.agent), "examine"):
            raise ConfigError(
                f"inference is learner, but the agent {agent_name(self.agent)} examines its evaluations, for which "
                "runners need its model: use inference=runner."
            )

    def evaluation_env_config(self) -> dict[str, Any]:
        """Return ``env_config`` with that of ``evaluation_config`` laid over it by name."""
        changes: Mapping[str, Any] = self.evaluation_config or {}
        return {**self.env_config, **changes.get("env_config", {})}

    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        """Return the config of evaluation runners; RLlib would mix mappings among the environment's options."""
        settings = super().get_evaluation_config_object()
        if settings is not None:
            settings.env_config = self.evaluation_env_config()
        return settings

    def get_default_learner_class(self) -> type:
        """Return the learner that hosts ``LearnerCore``."""
        from oneiros.platform.engine.learner import WorldModelLearner

        return WorldModelLearner

    def get_default_rl_module_spec(self) -> MultiRLModuleSpec:
        """Return a spec without modules: agents are built by the learner and the runners themselves."""
        return MultiRLModuleSpec(rl_module_specs={})

    def get_multi_rl_module_spec(self, *, spaces: Mapping[str, Any] | None = None, **kwargs: Any) -> MultiRLModuleSpec:
        """Return a spec without modules that tells the learners the environment's spaces."""
        observation_space, action_space = (spaces or {}).get(ENV_SPACES, (None, None))
        return MultiRLModuleSpec(rl_module_specs={}, observation_space=observation_space, action_space=action_space)

    def get_multi_agent_setup(self, **kwargs: Any) -> tuple[dict[str, Any], Any]:
        """RLlib's policies do not exist here."""
        return {}, lambda *args: True

    # ---- for the rest of the engine ----------------------------------------------------------------------------------

    def rows_per_update(self) -> int:
        """Return the steps that one update replays, over all learners."""
        hyper = self.hyperparameters()
        return int(hyper.batch_size * hyper.batch_length)

    def fragment_length(self) -> int:
        """Return the steps of each environment in one chunk.

        By default so few that the policy stays close to the newest weights: what one update uses up without runners,
        eight updates' worth over all runners with them.
        """
        if self.rollout_fragment_length != "auto":
            return int(self.rollout_fragment_length)
        envs = max(1, self.num_env_runners) * self.num_envs_per_env_runner
        updates = 8 if self.num_env_runners else 1
        return fragment_length(self.rows_per_update(), self.train_ratio, envs, updates)

    def threads_of_learner(self) -> int | None:
        """Return a learner's processor threads: what was set, else what env runners leave; None leaves it to PyTorch.

        What they leave is only known where all are on one machine.
        """
        if self.learner_threads is not None or self.num_env_runners == 0:
            return self.learner_threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, (cores - self.num_env_runners * self.env_runner_threads) // max(1, self.num_learners))

    def iteration_steps(self) -> int:
        """Return the policy steps of one iteration without env runners."""
        if self.env_steps_per_iteration is not None:
            return self.env_steps_per_iteration
        return iteration_steps(self.rows_per_update(), self.train_ratio)

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this config: plain values from which ``from_json`` builds it again."""
        values = {name: getattr(self, name) for name in KEPT}
        env = self.env if isinstance(self.env, str) else None
        played = self.evaluation_env_config()
        return {
            **values,
            "agent": agent_name(self.agent),
            "env": env,
            "env_config": dict(self.env_config),
            "evaluation_config": {"env_config": played} if played != self.env_config else None,
        }

    def from_json(self, values: Mapping[str, Any]) -> Self:
        """Take what ``to_json`` returned; an environment class or an agent class given to this config stays."""
        for name, value in values.items():
            if name == "agent" and (isinstance(self.agent, type) and agent_name(self.agent) == value):
                continue
            if name == "env" and value is None:
                continue
            if name in (*KEPT, "agent", "env", "env_config", "evaluation_config"):
                setattr(self, name, value)
        return self

    def _take(self, given: Mapping[str, Any]) -> Self:
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def _hyper_names(self) -> list[str]:
        return list(agent_class(self.agent).Config.model_fields)


class DreamerV3Config(WorldModelConfig):
    """DreamerV3 (Nature 2025): ``DreamerV3Config().environment("CartPole-v1").training(size="1m").build_algo()``."""

    def __init__(self, algo_class: type | None = None) -> None:
        from oneiros.platform.engine.algorithm import DreamerV3

        super().__init__(algo_class=algo_class or DreamerV3, agent="dreamerv3")


def single_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> dict[str, Any]:
    """Return the dictionary in which RLlib passes spaces from env runners to learners."""
    pair = (observation_space, action_space)
    return {"__env__": pair, ENV_SPACES: pair, DEFAULT_MODULE_ID: pair}


def _unknown(where: str, name: str, choices: Iterable[str], shown: Iterable[str] | None = None) -> ConfigError:
    """``shown``: the choices to list where none is near, if not all of them."""
    near = difflib.get_close_matches(name, list(choices), n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(sorted(shown or choices))}."
    return ConfigError(f"{where} knows no {name!r}: {hint}")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


def _shares(name: str, value: Mapping[str, float]) -> None:
    known = ("uniform", "priority", "curious", "recency")
    wrong = [key for key in value if key not in known]
    if wrong:
        raise ConfigError(f"{name} has the share {wrong[0]!r}; there are {', '.join(known)}.")
    if any(share < 0 for share in value.values()) or not math.isclose(sum(value.values()), 1.0, abs_tol=1e-6):
        raise ConfigError(f"{name} is {dict(value)}; its shares must be at least 0 and sum to 1.")


def _same(own: Any, given: Any) -> bool:
    try:
        return bool(own is given or own == given)
    except (AttributeError, TypeError, ValueError):
        return False

"""RLlib's ``EnvRunner`` around our rollout loop: the actor, its restarts and its placement are RLlib's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray
import torch
from gymnasium.vector import VectorEnv
from oneiros.algorithms.contract import Agent, Mode, Policy
from oneiros.envs import registry
from oneiros.platform.engine.callbacks import FinishedEpisode, call
from oneiros.platform.engine.config import ENV_SPACES, WorldModelConfig, single_spaces
from oneiros.platform.engine.inference import SECONDS_FOR_WEIGHTS
from oneiros.platform.engine.published import Published
from oneiros.platform.engine.remote_policy import RemotePolicy
from oneiros.platform.engine.rllib_envs import resolve
from oneiros.platform.engine.torch_flags import kept_torch_flags
from oneiros.platform.engine.watchdog import Watchdog
from oneiros.platform.rollout import Chunk, Episode, EvaluationResult, Rollout, evaluate
from oneiros.platform.training.agents import build_agent
from oneiros.platform.training.collector import Collected, RolloutCollector
from ray.exceptions import RayError
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass
class Announcement:
    """What an env runner says about a chunk; small, because it goes through the driver."""

    chunk: list[ray.ObjectRef[Any]]
    """The chunk, in a list so that the driver does not fetch it; none if there was an ``error``."""
    runner: int
    born: int
    """When it was collected, in nanoseconds: orders the chunks of one runner, also over its restarts."""
    env_steps: int
    policy_version: int
    episodes: list[Episode] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    """New ones since the last chunk."""
    error: str | None = None
    """Why there is no chunk."""


class WorldModelEnvRunner(EnvRunner):
    """Steps the environments of one process with its own copy of the policy, or one on the learner's device.

    A runner beside remote ones (worker 0) has no environments: RLlib wants it, and evaluations may be played in it.
    """

    config: WorldModelConfig
    env: VectorEnv[Any, Any, Any] | None  # type: ignore[assignment]

    def __init__(self, *, config: WorldModelConfig, **kwargs: Any) -> None:
        """Raises the registry's errors for an environment that cannot be made, and ``UnsupportedSpace``."""
        with kept_torch_flags():
            super().__init__(config=config, **kwargs)
        self._context = EnvContext(
            self.config.env_config,
            worker_index=self.worker_index or 0,
            num_workers=self.num_workers,
            remote=bool(self.worker_index),
        )
        creator, played = kwargs["env_creator"], self.config.evaluation_env_config()
        self._env_id, self._env_options = self._played = resolve(self.config.env, creator, self._context)
        if played != self._context:
            context = self._context.copy_with_overrides(env_config=played)
            self._played = resolve(self.config.env, creator, context, " in evaluations")
        self._spaces = kwargs.get("spaces")
        self._published = -1
        self._beginnings = _restarts() if self.worker_index else 0
        self.policy: Agent | RemotePolicy | None = None
        self.collector: RolloutCollector | None = None
        if self.worker_index:
            torch.set_num_threads(self.config.env_runner_threads)
        if self.worker_index or not self.num_workers:
            self.make_env()
        if self.worker_index and self.config.inference == "runner":
            self.make_module()

    # ---- ours --------------------------------------------------------------------------------------------------------

    def make_env(self) -> None:
        """Build the environments, closing those there were."""
        self.stop()
        envs = self.config.num_envs_per_env_runner
        self.env = registry.make_vector(
            self._env_id, envs, self.config.vectorization, self._own_seed(), **self._env_options
        )
        call(self, "on_environment_created", env=self.env, env_context=self._context)

    def make_module(self) -> None:
        """Build this runner's own copy of the policy."""
        self.policy = self._build_policy(*self._single_spaces(), seed=self._own_seed() + 1)

    def act_with(self, agent: Agent) -> None:
        """Act with ``agent`` itself, which someone else in this process trains, instead of a copy."""
        self.policy, self.collector = agent, None

    def announce(self, steps: int, newest: Published | None, random_steps: int) -> Announcement:
        """Take ``steps`` steps in every environment and hand out the chunk by reference.

        The ``newest`` weights are fetched only if this runner does not have them yet. ``random_steps`` is how many
        policy steps a runner that has just started takes at random.
        """
        try:
            with Watchdog(self._patience(2)):
                if self.env is None:
                    self.make_env()
                if newest is not None and newest.server is not None and self.policy is None:
                    self.policy = self._ask_at(newest, "train")
                collector = self._collector(random_steps)
                if newest is not None and newest.number > self._published:
                    self._take_weights(collector.rollout, newest)
                chunk, episodes, faults = self.collect(steps)
        except Exception as error:
            # RLlib would end this process and keep the reason to itself; begin again with new environments instead.
            log.exception("an env runner could not collect")
            self.stop()
            self._beginnings += 1
            if isinstance(self.policy, RemotePolicy):
                # Whom it asks may be gone for good; the next request says who acts then.
                self.policy, self._published = None, -1
            reason = f"{type(error).__name__}: {error}"
            return Announcement([], self.worker_index or 0, time.time_ns(), 0, 0, error=reason)
        return Announcement(
            [ray.put(chunk)],
            self.worker_index or 0,
            time.time_ns(),
            chunk.env_steps,
            chunk.policy_version,
            episodes,
            faults,
        )

    def collect(self, steps: int) -> Collected:
        """Take ``steps`` steps in every environment; calls the user's ``on_episode_end``."""
        collected = self._collector().collect(steps)
        if isinstance(self.policy, RemotePolicy):
            collected = _completed(collected, self.policy)
        self.num_env_steps_sampled_lifetime += collected.chunk.env_steps
        for episode in collected.episodes:
            call(
                self,
                "on_episode_end",
                episode=FinishedEpisode(episode),
                env=self.env,
                env_index=episode.slot,
                rl_module=None,
            )
        return collected

    def sample(self, *, num_timesteps: int | None = None, **kwargs: Any) -> Chunk:
        """Return a chunk of about ``num_timesteps`` policy steps (default: one fragment)."""
        envs = self.config.num_envs_per_env_runner
        steps = -(-num_timesteps // envs) if num_timesteps else self.config.fragment_length()
        return self.collect(steps).chunk

    def play(self, episodes: int, seed: int, weights: Mapping[str, Tensor] | Published) -> EvaluationResult:
        """Play whole ``episodes`` with the policy's best actions, in environments of their own.

        In a process of its own, a runner whose environments hang meanwhile ends itself.
        """
        policy: Policy
        if isinstance(weights, Published) and weights.server is not None:
            policy = self._ask_at(weights, "eval")
        else:
            own = weights if isinstance(weights, Mapping) else ray.get(weights.weights, timeout=SECONDS_FOR_WEIGHTS)
            policy = agent = self._build_policy(*self._single_spaces(), seed=seed)
            agent.load_policy_state(own)
        env_id, options = self._played
        with Watchdog(self._patience()) as watchdog:
            return evaluate(
                env_id,
                policy,
                episodes,
                seed=seed,
                num_envs=self.config.num_envs_per_env_runner,
                vectorization=self.config.vectorization,
                env_options=options,
                alive=watchdog.alive,
            )

    def play_apart(self, episodes: int, seed: int, weights: Published) -> EvaluationResult | str:
        """Do as ``play``, and return what is wrong where it cannot be done: raising would end this process."""
        try:
            return self.play(episodes, seed, weights)
        except Exception as error:
            log.exception("an env runner could not play")
            return f"{type(error).__name__}: {error}"

    def state_dict(self) -> dict[str, Any]:
        """Return what going on needs: environments, policy state and random state."""
        return self._collector().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on from ``state_dict``'s state and return True, or return False if it is of other environments."""
        if len(state["streams"]) != self.config.num_envs_per_env_runner:
            return False
        self._collector().load_state_dict(state)
        return True

    def begin_at(self, env_steps: int) -> None:
        """Go on after ``env_steps`` policy steps of which this runner knows nothing: its random ones may be over."""
        left = max(0, self.config.random_steps - env_steps)
        self._collector(left).rollout.random_left = left

    def process_id(self) -> int:
        """Return the id of the process that this runner runs in."""
        return os.getpid()

    # ---- what RLlib asks of a runner ---------------------------------------------------------------------------------

    def assert_healthy(self) -> None:
        """Raises ``AssertionError`` unless the environments were built."""
        assert self.env is not None

    def get_spaces(self) -> dict[str, Any]:
        """Return the environment's own spaces under the names by which RLlib passes them on."""
        return single_spaces(*self._single_spaces())

    def get_metrics(self) -> dict[str, Any]:
        """Metrics come with each chunk."""
        return {}

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's exchange of states is not used: weights come with each request to collect."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """See ``get_state``."""

    def stop(self) -> None:
        """Close the environments."""
        if self.env is not None:
            self.env.close()
        self.env, self.collector = None, None

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _own_seed(self) -> int:
        """That of this runner, and another each time it begins again: the same would bring the same episodes back."""
        seed = self._seed or 0
        if not self._beginnings:
            return seed
        return int(np.random.SeedSequence([seed, self._beginnings]).generate_state(1)[0] >> 1)

    def _patience(self, times: int = 1) -> float | None:
        """Seconds without a step after which this process ends itself, if it is one of its own.

        Whoever asked for chunks ends it sooner, ``times`` as soon, unless they are waiting for something else.
        """
        seconds = self.config.env_runner_timeout_s
        return None if seconds is None or not self.worker_index else times * seconds

    def _collector(self, random_steps: int | None = None) -> RolloutCollector:
        if self.collector is None:
            if self.policy is None:
                self.make_module()
            assert self.policy is not None and self.env is not None
            if random_steps is None:
                random_steps = self.config.random_steps
            index = max(0, (self.worker_index or 0) - 1)
            rollout = Rollout(
                self.env,
                self.policy,
                streams=index * self.config.num_envs_per_env_runner,
                random_steps=random_steps,
                seed=self._own_seed(),
                device=getattr(self.policy, "device", "cpu"),
            )
            self.collector = RolloutCollector(rollout)
        return self.collector

    def _ask_at(self, published: Published, mode: Mode) -> RemotePolicy:
        return RemotePolicy(published, mode, self.config.inference_timeout_s)

    def _take_weights(self, rollout: Rollout, newest: Published) -> None:
        if isinstance(self.policy, RemotePolicy):
            self.policy.offer(newest)
            self._published = newest.number
            return
        try:
            weights = ray.get(newest.weights, timeout=SECONDS_FOR_WEIGHTS)
        except RayError as error:
            log.warning(
                "new weights do not come from the learner that held them (%s); acting goes on with the old ones", error
            )
        else:
            assert self.policy is not None
            self.policy.load_policy_state(weights)
            rollout.policy_version = newest.updates
            self._published = newest.number

    def _build_policy(self, observation_space: Any, action_space: Any, seed: int) -> Agent:
        return build_agent(
            self.config.agent,
            self.config.hyperparameters(),
            observation_space,
            action_space,
            seed=seed,
            role="policy",
        )

    def _single_spaces(self) -> tuple[Any, Any]:
        if self.env is not None:
            return self.env.single_observation_space, self.env.single_action_space
        if self._spaces:
            observation_space, action_space = self._spaces[ENV_SPACES]
            return observation_space, action_space
        env = registry.make(self._env_id, **self._env_options)
        try:
            return env.observation_space, env.action_space
        finally:
            env.close()  # type: ignore[no-untyped-call]


def _restarts() -> int:
    """Something that is 0 in a process that Ray started first, and differs for each that it starts again."""
    return time.time_ns() if ray.get_runtime_context().was_current_actor_reconstructed else 0


def _completed(collected: Collected, policy: RemotePolicy) -> Collected:
    """What was collected, with what only the policy knows: whose weights acted, and how often it had to ask again."""
    acted = policy.acted()
    faults = {**collected.faults, "inference_retries": acted.retries} if acted.retries else collected.faults
    return collected._replace(chunk=replace(collected.chunk, policy_version=acted.updates), faults=faults)

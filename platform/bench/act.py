"""What a step in an environment costs beyond the environment: the env-runner loop, with and without inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from oneiros.algorithms.contract import Field, Mode, Tensors
from oneiros.envs import registry
from oneiros.platform.bench.durations import Durations
from oneiros.platform.bench.kinds import find_kind
from oneiros.platform.bench.learner import LearnerSettings, checked_device
from oneiros.platform.bench.machine import OtherLoad, describe
from oneiros.platform.bench.null_env import NULL_ENV
from oneiros.platform.config import ConfigError
from oneiros.platform.rollout import Rollout
from oneiros.platform.training.agents import build_agent
from torch import Tensor

FRAGMENT = 64
"""Steps of each environment that one chunk holds; its allocation is part of the cost."""


class NullPolicy:
    """Answers at once: the same action, and latents of the same fields as those of ``policy``, every time."""

    def __init__(self, obs: str, envs: int, latent_fields: Mapping[str, Field]) -> None:
        space = find_kind(obs).action_space
        self.latent_fields = latent_fields
        self._action = {"action": torch.from_numpy(np.stack([np.zeros_like(space.sample())] * envs))}
        self._latents = {
            key: torch.from_numpy(np.zeros((envs, *field.shape), field.dtype)) for key, field in latent_fields.items()
        }

    def initial_state(self, batch: int) -> Tensors:
        """Nothing to remember."""
        return {}

    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        """See ``contract.Policy``."""
        return self._action, state, self._latents

    def load_policy_state(self, tensors: Mapping[str, Tensor]) -> None:
        """There are no weights."""


def measure_act(settings: LearnerSettings, envs: int, steps: int) -> dict[str, Any]:
    """Seconds a step in one of ``envs`` environments that cost nothing, over ``steps`` steps of each.

    ``with_inference`` is the whole loop with the model's policy, ``without_inference`` the loop alone, each divided by
    the number of environments; ``vector_step_s`` is the whole loop's turn for all of them. The two are measured in
    turns. Raises ``ConfigError``.
    """
    if envs < 1 or steps < 1:
        raise ConfigError(f"envs is {envs} and steps {steps}; both must be at least 1.")
    kind, hyper, device = find_kind(settings.obs), settings.hyperparameters(), checked_device(settings.device)
    spaces = kind.observation_space, kind.action_space
    policy = build_agent("dreamerv3", hyper, *spaces, device=str(device), role="policy")
    loops = {
        "with_inference": _rollout(settings.obs, envs, policy, device),
        "without_inference": _rollout(settings.obs, envs, NullPolicy(settings.obs, envs, policy.latent_fields), "cpu"),
    }
    fragment = min(FRAGMENT, steps)
    durations = {name: Durations() for name in loops}
    with OtherLoad() as others:
        for loop in loops.values():
            loop.collect(fragment)
        for _ in range(max(1, steps // fragment)):
            for name, loop in loops.items():
                durations[name].time(lambda loop=loop: loop.collect(fragment))  # type: ignore[misc]
    for loop in loops.values():
        loop.close()
    per_step = {
        name: {key: value / fragment / envs for key, value in measured.summary().items()}
        for name, measured in durations.items()
    }
    return {
        "median_s": per_step["with_inference"]["median_s"],
        "min_s": per_step["with_inference"]["min_s"],
        "max_s": per_step["with_inference"]["max_s"],
        **per_step,
        "vector_step_s": per_step["with_inference"]["median_s"] * envs,
        "envs": envs,
        "steps": max(1, steps // fragment) * fragment,
        "size": settings.size,
        "obs": settings.obs,
        "overrides": dict(settings.overrides),
        "other_load": others.share,
        **describe(device),
    }


def policy_loop(settings: LearnerSettings, envs: int) -> Rollout:
    """The whole loop of ``envs`` environments that cost nothing, with the model's policy; raises ``ConfigError``."""
    kind, device = find_kind(settings.obs), checked_device(settings.device)
    spaces = kind.observation_space, kind.action_space
    policy = build_agent("dreamerv3", settings.hyperparameters(), *spaces, device=str(device), role="policy")
    return _rollout(settings.obs, envs, policy, device)


def _rollout(obs: str, envs: int, policy: Any, device: torch.device | str) -> Rollout:
    vector = registry.make_vector(NULL_ENV, envs, "sync", 0, kind=obs)
    return Rollout(vector, policy, device=device)

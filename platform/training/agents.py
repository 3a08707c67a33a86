"""Agents by name, and the parts of a run that follow from an agent and its spaces."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import TRAINING_ONLY, Agent, Field, SpaceDict
from oneiros.envs.spaces import action_dtype, flatten_action_space, flatten_observation_space
from oneiros.platform.config import ConfigError, find_algorithm
from oneiros.platform.config.errors import explain
from pydantic import ValidationError

AgentClass = type[Any]
AgentName = str | AgentClass
"""An entry point's name, ``module:Class``, or the class itself."""


def agent_class(name: AgentName) -> AgentClass:
    """Return the class that ``name`` names; raises ``ConfigError`` with the choices if there is none."""
    if isinstance(name, type):
        return name
    module, colon, attribute = name.partition(":")
    if not colon:
        return cast(AgentClass, find_algorithm(name).agent_class)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the agent {name!r} cannot be imported: {error}.") from error
    return cast(AgentClass, found)


def agent_name(name: AgentName) -> str:
    """Return the name under which checkpoints record an agent."""
    return f"{name.__module__}:{name.__qualname__}" if isinstance(name, type) else name


def hyperparameters(name: AgentName, values: Mapping[str, Any]) -> Any:
    """Validate ``values`` into the agent's ``Config``; raises ``ConfigError`` naming the first wrong key."""
    try:
        return agent_class(name).Config(**values)
    except ValidationError as error:
        raise explain(error) from error


def build_agent(
    name: AgentName,
    config: Any,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    device: str = "cpu",
    seed: int = 0,
    role: Literal["learner", "policy"] = "learner",
) -> Agent:
    """Build an agent for an environment's own (not flattened) spaces; raises ``UnsupportedSpace``."""
    agent = agent_class(name)(
        config,
        told(agent_class(name), flatten_observation_space(observation_space)),
        flatten_action_space(action_space),
        device=device,
        seed=seed,
        role=role,
    )
    return cast(Agent, agent)


def told(agent: AgentClass, obs_space: SpaceDict) -> dict[str, spaces.Space[Any]]:
    """Return the observation space that ``agent`` is told of: training-only keys are for those that ask for them."""
    reads = getattr(agent, "READS_TRAINING_ONLY", False)
    return {key: space for key, space in obs_space.items() if reads or not key.startswith(TRAINING_ONLY)}


def row_fields(agent: Agent, obs_space: SpaceDict, action_space: SpaceDict) -> dict[str, Field]:
    """Return what a row of experience holds: observations, actions, reward, flags and the agent's latents."""
    latents = {f"latent/{key}": field for key, field in agent.latent_fields.items()}
    return experience_fields(obs_space, action_space) | latents


def experience_fields(obs_space: SpaceDict, action_space: SpaceDict) -> dict[str, Field]:
    """Return what a row of experience holds whatever the agent: observations, actions, reward and flags."""
    fields = {key: Field(space.shape or (), np.dtype(space.dtype)) for key, space in obs_space.items()}
    fields |= {key: Field(space.shape or (), action_dtype(space)) for key, space in action_space.items()}
    fields["reward"] = Field((), np.dtype(np.float32))
    fields |= {flag: Field((), np.dtype(bool)) for flag in ("is_first", "is_last", "is_terminal")}
    return fields


def resolve_device(name: str) -> torch.device:
    """Return what ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means here; raises ``ConfigError`` if it is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name}, but PyTorch finds no CUDA device here; use cpu or auto.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(f"device is {name}, but there are {torch.cuda.device_count()} CUDA devices, from cuda:0 on.")
    return device

"""Putting an agent, a replay and a source of batches together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from oneiros.algorithms.contract import Agent
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
from oneiros.platform.replay import Replay
from oneiros.platform.training.agents import row_fields
from oneiros.platform.training.core import LearnerCore


def build_core(
    agent: Agent,
    hyper: Any,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    device: torch.device,
    capacity: int,
    directory: Path | None = None,
    online: bool = True,
    mixture: Mapping[Any, float] | None = None,
    latent_stride: int = 1,
    seed: int = 0,
    most_nonfinite: int = 50,
    ahead: bool = False,
) -> LearnerCore:
    """Build the core around ``agent``, for an environment's own (not flattened) spaces.

    ``hyper`` is the agent's config, which says ``batch_size``, ``batch_length`` and ``replay_context``. ``directory``
    keeps the replay on disk. ``ahead`` samples the next batch on a thread while an update runs: faster, but no longer
    repeatable.
    """
    replay = Replay(
        row_fields(agent, flatten_observation_space(observation_space), flatten_action_space(action_space)),
        capacity=capacity,
        length=hyper.batch_length,
        context=hyper.replay_context,
        batch=hyper.batch_size,
        directory=directory,
        seed=seed,
        online=online,
        mixture=mixture,
        latent_stride=latent_stride,
    )
    return LearnerCore(agent, replay, device, ahead=ahead, most_nonfinite=most_nonfinite)

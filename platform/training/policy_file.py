"""The policy of a checkpoint by itself: what evaluation, serving and export need, without optimiser or replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces
from oneiros.algorithms.contract import Policy
from oneiros.platform.checkpoint import CheckpointError, Manifest, read_manifest, space_from_json, write_tensors
from oneiros.platform.training.agents import AgentName, agent_name, build_agent, hyperparameters
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

POLICY_FILE = "policy.safetensors"


def save_policy(weights: Mapping[str, Tensor], directory: Path) -> None:
    """Write the policy's weights into the checkpoint ``directory``; raises ``OSError``."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_tensors(directory / POLICY_FILE, own)


def read_policy(directory: Path) -> dict[str, Tensor]:
    """Return what ``save_policy`` wrote; raises ``CheckpointError``."""
    try:
        return load_file(directory / POLICY_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the policy {directory / POLICY_FILE} cannot be read: {error}") from error


def load_policy(
    directory: Path, *, agent: AgentName | None = None, seed: int = 0, device: str = "cpu"
) -> tuple[Policy, Manifest]:
    """Build the policy of the checkpoint ``directory``, and return it with the manifest.

    ``agent`` is needed only for an agent class that cannot be imported by the name that the checkpoint has of it.
    Raises ``CheckpointError`` if the checkpoint is damaged, and ``ConfigError`` if its algorithm is not installed.
    """
    manifest = read_manifest(directory)
    name = manifest.algorithm if agent is None or agent_name(agent) != manifest.algorithm else agent
    observation_space, action_space = policy_spaces(manifest)
    policy = build_agent(
        name,
        hyperparameters(name, manifest.hyperparameters),
        observation_space,
        action_space,
        device=device,
        seed=seed,
        role="policy",
    )
    try:
        policy.load_policy_state(read_policy(directory))
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the policy of {directory} is of another model: {error}") from error
    return policy, manifest


def policy_spaces(manifest: Manifest) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return the observation and the action space of the environment that a checkpoint was trained in."""
    return space_from_json(manifest.observation_space), space_from_json(manifest.action_space)

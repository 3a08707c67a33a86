"""Beginning with what another run has learnt: its parameters, but for the parts that begin anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from oneiros.algorithms.contract import Agent, Tensors
from oneiros.platform.checkpoint import CheckpointError
from oneiros.platform.config import ConfigError
from oneiros.platform.config.errors import unknown
from oneiros.platform.training.core import AGENT_FILE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

TRAINING_STATE = ("optimiser", "generator", "updates")
"""Parts of an agent's state that are of one training, not of what it has learnt: they always begin anew."""


def parts_of(agent: type[Agent] | Agent, state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """The parts that can be reset, by name: how the keys of their entries in ``state`` begin.

    An agent class may name its ``PARTS``; else they are the first words of the keys.
    """
    named: dict[str, tuple[str, ...]] | None = getattr(agent, "PARTS", None)
    if named is not None:
        return named
    words = dict.fromkeys(key.split("/")[0] for key in state)
    return {word: (f"{word}/",) for word in words if word not in TRAINING_STATE}


def read_learnt(checkpoint: Path) -> Tensors:
    """The agent's state in a checkpoint; raises ``CheckpointError``."""
    path = checkpoint / "learner-0" / AGENT_FILE
    if not path.is_file():
        raise CheckpointError(f"{checkpoint} holds no agent to go on from, only a policy: name a run or its checkpoint")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the agent {path} cannot be read: {error}") from error


def adopt(agent: Agent, learnt: Mapping[str, Tensor], reset: Sequence[str] = ()) -> list[str]:
    """Give ``agent`` the parameters in ``learnt`` but for the parts ``reset``; returns the keys that it took.

    Raises ``ConfigError`` for an unknown part and ``CheckpointError`` for the state of another model.
    """
    own = agent.state_dict()
    parts = parts_of(agent, own)
    for name in reset:
        if name not in parts:
            raise unknown("part", name, parts, " (in --reset)")
    kept = tuple(prefix for name in reset for prefix in parts[name])
    taken = [key for key in own if key.split("/")[0] not in TRAINING_STATE and not (kept and key.startswith(kept))]
    missing = [key for key in taken if key not in learnt]
    if missing:
        raise CheckpointError(f"the checkpoint has no {missing[0]!r}, so it is of another model")
    if not taken:
        raise ConfigError(f"resetting {', '.join(reset)} leaves nothing of the checkpoint to begin with.")
    try:
        agent.load_state_dict({**own, **{key: learnt[key] for key in taken}})
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint is of another model: {error}") from error
    return taken

"""The spaces that a checkpoint was trained on, as JSON."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from oneiros.envs import space_json
from oneiros.envs.contract import UnsupportedSpace
from oneiros.envs.space_json import describe
from oneiros.platform.checkpoint.errors import CheckpointError

__all__ = ["Space", "describe", "space_from_json", "space_to_json"]

Space = spaces.Space[Any]


def space_to_json(space: Space) -> dict[str, Any]:
    """Describe ``space``; raises ``CheckpointError`` for a kind that has no description."""
    try:
        return space_json.space_to_json(space)
    except UnsupportedSpace as error:
        raise CheckpointError(f"{error}, so a checkpoint cannot hold it") from error


def space_from_json(description: dict[str, Any]) -> Space:
    """Rebuild the space that ``space_to_json`` described; raises ``CheckpointError`` for an unknown kind."""
    try:
        return space_json.space_from_json(description)
    except UnsupportedSpace as error:
        raise CheckpointError(f"the checkpoint's spaces cannot be read: {error}") from error

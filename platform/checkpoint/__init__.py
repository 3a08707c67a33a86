"""Checkpoints: atomic directories of safetensors and JSON; loading one runs no code from it."""

from oneiros.platform.checkpoint.errors import CheckpointError, CheckpointWriteError
from oneiros.platform.checkpoint.manifest import Manifest, read_manifest, require_algorithm, require_spaces
from oneiros.platform.checkpoint.spaces import space_from_json, space_to_json
from oneiros.platform.checkpoint.store import (
    SELF_CHECKED,
    CheckpointStore,
    Description,
    Retention,
    open_checkpoint,
    write_checkpoint,
)
from oneiros.platform.checkpoint.tensors import write_tensors
from oneiros.platform.checkpoint.tree import read_tree, write_tree

__all__ = [
    "SELF_CHECKED",
    "CheckpointError",
    "CheckpointStore",
    "CheckpointWriteError",
    "Description",
    "Manifest",
    "Retention",
    "open_checkpoint",
    "read_manifest",
    "read_tree",
    "require_algorithm",
    "require_spaces",
    "space_from_json",
    "space_to_json",
    "write_checkpoint",
    "write_tensors",
    "write_tree",
]

"""The policy folder: ``manifest.json`` and ``policy.safetensors``, and ``policy.onnx`` where it was asked for.

It is a checkpoint with nothing in it but the policy, so its manifest says the algorithm, the hyperparameters, the
spaces, the counters, the version that wrote it and the digest of every file, and nothing of it is ever unpickled.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneiros.platform.checkpoint import Description, Manifest, read_manifest, write_checkpoint
from oneiros.platform.checkpoint.manifest import MANIFEST, verify_files
from oneiros.platform.training.policy_file import POLICY_FILE, policy_spaces

ONNX_FILE = "policy.onnx"
KIND = "policy"
"""``config["kind"]`` of a policy folder's manifest."""


class ExportError(ValueError):
    """A policy that cannot be exported, or not to there; one sentence names it and the reason."""


def export_policy(
    checkpoint: Path, to: Path, *, env: str, env_options: Mapping[str, Any] | None = None, onnx: bool = False
) -> Manifest:
    """Write the policy of ``checkpoint`` into the folder ``to``, whole or not at all, and return its manifest.

    ``env`` and ``env_options`` are recorded: where the policy was trained. A policy folder that is there already is
    replaced. Raises ``ExportError``, ``CheckpointError`` for a damaged checkpoint, ``CheckpointWriteError`` for a disk
    that does not take it.
    """
    require_policy_folder(to)
    manifest = read_manifest(checkpoint)
    if POLICY_FILE not in manifest.files:
        raise ExportError(f"the checkpoint {checkpoint} holds no {POLICY_FILE}, so there is no policy to export")
    verify_files(checkpoint, manifest.model_copy(update={"files": {POLICY_FILE: manifest.files[POLICY_FILE]}}))
    observation_space, action_space = policy_spaces(manifest)

    def describe(directory: Path) -> Description:
        shutil.copyfile(checkpoint / POLICY_FILE, directory / POLICY_FILE)
        config: dict[str, Any] = {"kind": KIND, "env": env, "env_options": dict(env_options or {})}
        if onnx:
            from oneiros.platform.export.onnx_graph import write_graph

            config["onnx"] = write_graph(checkpoint, directory / ONNX_FILE)
        return Description(
            algorithm=manifest.algorithm,
            hyperparameters=manifest.hyperparameters,
            counters=manifest.counters,
            observation_space=observation_space,
            action_space=action_space,
            config=config,
            score=manifest.score,
        )

    return write_checkpoint(to, describe)


def require_policy_folder(to: Path) -> None:
    """Raise ``ExportError`` unless ``to`` is new, empty, or a policy folder that may be replaced."""
    if to.is_file():
        raise ExportError(f"{to} is a file; a policy is exported to a folder")
    if to.is_dir() and any(to.iterdir()):
        kind = read_manifest(to).config.get("kind") if (to / MANIFEST).is_file() else None
        if kind != KIND:
            raise ExportError(f"{to} is not empty and no policy folder; choose a new folder for --to")

"""Nested state as two files: tensors in safetensors, everything else in JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oneiros.platform.checkpoint.errors import CheckpointError
from oneiros.platform.checkpoint.tensors import write_tensors
from safetensors import SafetensorError
from safetensors.torch import load_file

_TAGS = ("$tensor", "$array", "$tuple", "$items", "$float", "$bytes")


def write_tree(stem: Path, tree: Any) -> None:
    """Write ``tree`` to ``stem.json`` and ``stem.safetensors``.

    A tree is made of dicts, lists, tuples, tensors of any shape, numpy arrays and scalars, numbers, strings, bytes,
    booleans and None. Raises ``CheckpointError`` naming the first entry of any other type, and ``OSError``.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _encode(tree, "", tensors)
    write_tensors(stem.with_suffix(".safetensors"), tensors)
    stem.with_suffix(".json").write_text(json.dumps(skeleton, allow_nan=False))


def read_tree(stem: Path) -> Any:
    """Return the tree that ``write_tree`` wrote, tensors on the CPU; raises ``CheckpointError`` if it is damaged."""
    try:
        skeleton = json.loads(stem.with_suffix(".json").read_text())
        tensors = load_file(stem.with_suffix(".safetensors"))
        return _decode(skeleton, tensors)
    except (OSError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"the state {stem} cannot be read: {error!r}") from error


def _encode(node: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if node is None or isinstance(node, bool | str):
        return node
    if isinstance(node, torch.Tensor):
        # safetensors refuses tensors that share memory, and a view would drag its whole storage along.
        tensors[path] = node.detach().cpu().contiguous().clone()
        return {"$tensor": path}
    if isinstance(node, np.ndarray | np.generic):
        array = np.asarray(node)
        if array.dtype.hasobject or array.dtype.kind not in "biuf":
            raise CheckpointError(
                f"the state entry {path!r} is an array of {array.dtype}, which no checkpoint can hold"
            )
        tensors[path] = torch.from_numpy(np.array(array, order="C"))
        return {"$array": path}
    if isinstance(node, bytes):
        tensors[path] = torch.frombuffer(bytearray(node) or bytearray(1), dtype=torch.uint8)[: len(node)].clone()
        return {"$bytes": path}
    if isinstance(node, int):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"$float": repr(node)}
    if isinstance(node, tuple):
        return {"$tuple": [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(node)]}
    if isinstance(node, list):
        return [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(node)]
    if isinstance(node, dict):
        if all(isinstance(key, str) and key not in _TAGS for key in node):
            return {key: _encode(value, f"{path}/{key}", tensors) for key, value in node.items()}
        pairs = enumerate(node.items())
        return {
            "$items": [
                [_encode(k, f"{path}/{i}k", tensors), _encode(v, f"{path}/{i}v", tensors)] for i, (k, v) in pairs
            ]
        }
    raise CheckpointError(f"the state entry {path!r} is a {type(node).__name__}, which no checkpoint can hold")


def _decode(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    match node:
        case {"$tensor": key}:
            return tensors[key]
        case {"$array": key}:
            return tensors[key].numpy()
        case {"$bytes": key}:
            return tensors[key].numpy().tobytes()
        case {"$float": text}:
            return float(text)
        case {"$tuple": items}:
            return tuple(_decode(item, tensors) for item in items)
        case {"$items": pairs}:
            return {_decode(key, tensors): _decode(value, tensors) for key, value in pairs}
    return {key: _decode(value, tensors) for key, value in node.items()}

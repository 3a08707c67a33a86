"""Nested observations and actions as flat names and arrays, by the space that describes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.envs.external.wire import Arrays


def flatten(space: spaces.Space[Any], value: Any, name: str = "") -> Arrays:
    """One array for each leaf of ``space``, named by its path. Raises ``ValueError`` for a missing entry."""
    parts = _parts(space)
    if parts is None:
        dtype = space.dtype if space.dtype is not None else np.int64
        return {name: np.asarray(value, dtype)}
    flat: Arrays = {}
    for key, part in parts.items():
        if isinstance(value, dict) and key not in value:
            raise ValueError(f"the entry {key!r} of {name or 'the value'} is missing; there are {', '.join(value)}")
        inner = value[key] if isinstance(space, spaces.Dict) else value[int(key)]
        flat |= flatten(part, inner, f"{name}/{key}" if name else key)
    return flat


def unflatten(space: spaces.Space[Any], arrays: Arrays, name: str = "") -> Any:
    """The inverse of ``flatten``; classes come back as numbers. Raises ``ValueError`` for a missing array."""
    parts = _parts(space)
    if parts is not None:
        values = {key: unflatten(part, arrays, f"{name}/{key}" if name else key) for key, part in parts.items()}
        return values if isinstance(space, spaces.Dict) else tuple(values.values())
    if name not in arrays:
        raise ValueError(f"the array {name!r} is missing; there are {', '.join(sorted(arrays))}")
    return arrays[name][()] if isinstance(space, spaces.Discrete) else arrays[name]


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]] | None:
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, spaces.Tuple):
        return {str(i): part for i, part in enumerate(space.spaces)}
    return None

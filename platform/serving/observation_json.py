"""Observations and actions as JSON: nested lists and objects in the structure of their spaces.

A box may also be ``{"base64": "..."}``: its values in C order, little-endian, in the space's own dtype. Images are ten
times smaller and faster that way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.platform.export.acting import Array
from oneiros.platform.serving.refusals import BadRequest

BYTES_A_NUMBER = 32
"""JSON's longest way to write one."""


def read(space: spaces.Space[Any], value: Any, name: str = "observation") -> Any:
    """Return ``value`` in the structure and dtypes of ``space``; raises ``BadRequest`` naming what does not fit."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise BadRequest(f"{name} must be an object with {', '.join(space.spaces)}, not {_brief(value)}")
        if unknown := sorted(value.keys() - space.spaces.keys()):
            raise BadRequest(f"{name} has no entry {unknown[0]!r}; it has {', '.join(space.spaces)}")
        if missing := [key for key in space.spaces if key not in value]:
            raise BadRequest(f"{name} lacks {', '.join(map(repr, missing))}")
        return {key: read(part, value[key], f"{name}/{key}") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, list) or len(value) != len(space.spaces):
            raise BadRequest(f"{name} must be a list of {len(space.spaces)} entries, not {_brief(value)}")
        return tuple(read(part, entry, f"{name}/{i}") for i, (part, entry) in enumerate(zip(space, value, strict=True)))
    return _leaf(space, value, name)


def write(action: Any) -> Any:
    """Nested arrays as what JSON can hold."""
    if isinstance(action, Mapping):
        return {key: write(value) for key, value in action.items()}
    if isinstance(action, tuple):
        return [write(value) for value in action]
    return np.asarray(action).tolist()


def largest(space: spaces.Space[Any]) -> int:
    """Bytes that an observation takes at most as JSON, generously."""
    if isinstance(space, spaces.Dict):
        return sum(len(key) + 16 + largest(part) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return sum(16 + largest(part) for part in space.spaces)
    return 64 + BYTES_A_NUMBER * int(np.prod(space.shape or (1,)))


def describe(space: spaces.Space[Any]) -> str:
    """What a leaf of JSON must be, in words."""
    shape = tuple(space.shape or ())
    return f"{space.dtype} of the shape {shape}" if shape else f"one {space.dtype}"


def _leaf(space: spaces.Space[Any], value: Any, name: str) -> Array:
    shape, dtype = tuple(space.shape or ()), np.dtype(space.dtype)
    given = _decode(value, shape, dtype, name) if isinstance(value, Mapping) else _array(value, name, describe(space))
    if given.shape != shape:
        raise BadRequest(f"{name} has the shape {given.shape}, but must be {describe(space)}")
    if dtype.kind in "iu" and given.dtype.kind == "f" and not np.array_equal(given, np.rint(given)):
        raise BadRequest(f"{name} must be {describe(space)}, without fractions")
    if not np.isfinite(given).all():
        raise BadRequest(f"{name} has a value that is not finite")
    low, high = _bounds(space)
    if (given < low).any() or (given > high).any():
        raise BadRequest(f"{name} has a value outside of {np.min(low)} to {np.max(high)}")
    return given.astype(dtype)


def _array(value: Any, name: str, wanted: str) -> Array:
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise BadRequest(f"{name} is not a regular array; it must be {wanted}") from error
    if given.dtype.kind not in "biuf":
        raise BadRequest(f"{name} must be {wanted}, not {_brief(value)}")
    return given


def _decode(value: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Array:
    if value.keys() != {"base64"} or not isinstance(value["base64"], str):
        raise BadRequest(f'{name} must be an array or {{"base64": "..."}}, not an object of {", ".join(value)}')
    try:
        content = base64.b64decode(value["base64"], validate=True)
    except binascii.Error as error:
        raise BadRequest(f"{name} is not base64: {error}") from error
    size = int(np.prod(shape)) * dtype.itemsize
    if len(content) != size:
        raise BadRequest(f"{name} has {len(content)} bytes, but {dtype} of the shape {shape} has {size}")
    return np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """What values may be. Real-valued boxes are no bounds: sensors exceed them, and training saw that too."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        start, count = np.asarray(space.start, np.int64), np.asarray(space.nvec, np.int64)
        return start, np.subtract(np.add(start, count), 1)
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        return space.low, space.high
    return -np.inf, np.inf


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

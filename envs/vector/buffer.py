"""The observations of ``N`` environments, checked and written in place."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.envs.spaces import AnySpace, Array, Leaf, observation_leaves
from oneiros.envs.vector.fault import EnvironmentFault

Check = Callable[[Any], Any]
"""Returns a value that may be assigned to a row; raises ``EnvironmentFault``."""


class ObservationBuffer:
    """Preallocated arrays ``(N, ...)``, one an entry of the observation space, in the space's own dtypes.

    ``memory`` (``nbytes`` long, all processes' the same) makes them shared.
    """

    def __init__(self, space: AnySpace, num_envs: int, memory: memoryview | None = None) -> None:
        self.leaves = observation_leaves(space)
        self.arrays = _arrays(self.leaves, num_envs, memory)
        self.batch = _structure(space, (), dict(zip((leaf.path for leaf in self.leaves), self.arrays, strict=True)))
        """The same arrays in the structure of the batched space."""
        self._entries = [(leaf.path, _check(leaf), array) for leaf, array in zip(self.leaves, self.arrays, strict=True)]

    @staticmethod
    def nbytes(space: AnySpace, num_envs: int) -> int:
        """How much memory the arrays need, alignment included."""
        return sum(_aligned(num_envs * _row_bytes(leaf.space)) for leaf in observation_leaves(space))

    def write(self, index: int, observation: Any) -> None:
        """Store one environment's observation; raises ``EnvironmentFault`` if it is not of the declared space."""
        for path, check, array in self._entries:
            value = observation
            for step in path:
                try:
                    value = value[step]
                except (KeyError, IndexError, TypeError):
                    place = "/".join(map(str, path))
                    raise EnvironmentFault("structure", f"the observation has no entry {place!r}") from None
            array[index] = check(value)


def _row_bytes(space: AnySpace) -> int:
    return math.prod(space.shape or ()) * np.dtype(space.dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _arrays(leaves: tuple[Leaf, ...], num_envs: int, memory: memoryview | None) -> list[Array]:
    arrays: list[Array] = []
    offset = 0
    for leaf in leaves:
        shape, dtype = (num_envs, *(leaf.space.shape or ())), np.dtype(leaf.space.dtype)
        if memory is None:
            arrays.append(np.zeros(shape, dtype))
        else:
            arrays.append(np.ndarray(shape, dtype, memory, offset))
            offset += _aligned(num_envs * _row_bytes(leaf.space))
    return arrays


def _structure(space: AnySpace, path: tuple[str | int, ...], arrays: dict[tuple[str | int, ...], Array]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _structure(sub, (*path, key), arrays) for key, sub in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_structure(sub, (*path, index), arrays) for index, sub in enumerate(space.spaces))
    return arrays[path]


def _check(leaf: Leaf) -> Check:
    if isinstance(leaf.space, spaces.Discrete):
        return _discrete_check(leaf.key, int(leaf.space.start), int(leaf.space.n))
    if isinstance(leaf.space, spaces.MultiDiscrete):
        low = np.asarray(leaf.space.start)
        return _array_check(leaf, low, low + leaf.space.nvec - 1)
    if isinstance(leaf.space, spaces.MultiBinary):
        return _array_check(leaf, np.int64(0), np.int64(1))
    return _array_check(leaf, None, None)


def _discrete_check(key: str, start: int, count: int) -> Check:
    def check(value: Any) -> int:
        try:
            number = operator.index(value)
        except TypeError:
            kind = type(value).__name__
            raise EnvironmentFault("dtype", f"observation {key!r} is a whole number, not {kind} {value!r}") from None
        if not start <= number < start + count:
            raise EnvironmentFault("range", f"observation {key!r} is {number}, outside {start} to {start + count - 1}")
        return number

    return check


def _array_check(leaf: Leaf, low: Any, high: Any) -> Check:
    key, shape, dtype = leaf.key, leaf.space.shape, np.dtype(leaf.space.dtype)
    floating = np.issubdtype(dtype, np.floating)
    add, isfinite = np.add.reduce, math.isfinite

    def check(value: Any) -> Array:
        array: Array = value if type(value) is np.ndarray else np.asarray(value)
        if array.shape != shape:
            raise EnvironmentFault("shape", f"observation {key!r} has the shape {array.shape}, declared is {shape}")
        if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind") and not _fits(array, dtype):
            raise EnvironmentFault("dtype", f"observation {key!r} holds {array.dtype}, declared is {dtype}")
        # A finite sum proves every number finite; only a sum that is not needs the closer look.
        if floating and not isfinite(add(array, None, np.float64)) and not np.isfinite(array).all():
            raise EnvironmentFault("nan", f"observation {key!r} holds a number that is not finite")
        if low is not None and ((array < low) | (array > high)).any():
            raise EnvironmentFault("range", f"observation {key!r} has values outside its space")
        return array

    return check


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether whole numbers of another kind lose nothing: Python's ints arrive as int64 where uint8 is declared."""
    if array.dtype.kind not in "iub" or dtype.kind not in "iu" or array.size == 0:
        return False
    limits = np.iinfo(dtype)
    return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)

"""Between an environment's own spaces and the flat ones that agents and replay work with.

``N`` is the number of environments stepped together; leading axes are batched throughout.

Observations become ``{key: array}``: a bare space has the key ``obs``, entries of Dict and Tuple spaces are named by
their path (``camera/left``). A name that the rows of experience use themselves gets the prefix ``obs/``. Boxes are
float32, except uint8 ones, which stay bytes; a grey image ``(H, W)`` gets a channel axis. Discrete values count from 0.

Actions are what an agent produces: boxes in [-1, 1], discrete values from 0, under ``action`` or ``action/<path>``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import UnsupportedSpace

Array = NDArray[Any]
AnySpace = spaces.Space[Any]
Path = tuple[str | int, ...]

RESERVED = frozenset({"reward", "is_first", "is_last", "is_terminal", "action", "row_id", "latent", "latent_valid"})
"""Row entries that are not observations, and the prefixes of such entries."""

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
GREY_IMAGE_SIDE = 16
"""A uint8 matrix whose sides are at least this long is taken for a grey image."""


@dataclass(frozen=True)
class Leaf:
    """One entry of a nested space: where it lies, its own space, and the one that agents see."""

    key: str
    path: Path
    space: AnySpace
    flat: AnySpace


def is_image(space: AnySpace) -> bool:
    """Whether a flat observation space is an image ``(H, W, C)`` of bytes."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def flatten_observation_space(space: AnySpace) -> dict[str, AnySpace]:
    """The flat spaces of an environment's observations; raises ``UnsupportedSpace``."""
    return {leaf.key: leaf.flat for leaf in observation_leaves(space)}


def flatten_action_space(space: AnySpace) -> dict[str, AnySpace]:
    """The flat spaces of an environment's actions: boxes are ``Box(-1, 1)``; raises ``UnsupportedSpace``."""
    return {leaf.key: leaf.flat for leaf in action_leaves(space)}


def observation_leaves(space: AnySpace) -> tuple[Leaf, ...]:
    """The entries of an observation space, in its own order."""
    leaves = []
    for path, leaf in _walk(space, ()):
        key = "/".join(map(str, path)) or "obs"
        if key.split("/")[0] in RESERVED:
            key = f"obs/{key}"
        leaves.append(Leaf(key, path, leaf, _flat_observation(leaf, f"observation {key!r}")))
    return _distinct(leaves, "observation")


def action_leaves(space: AnySpace) -> tuple[Leaf, ...]:
    """The entries of an action space, in its own order."""
    leaves = []
    for path, leaf in _walk(space, ()):
        key = "/".join(["action", *map(str, path)])
        leaves.append(Leaf(key, path, leaf, _flat_action(leaf, f"action {key!r}")))
    return _distinct(leaves, "action")


def _walk(space: AnySpace, path: Path) -> list[tuple[Path, AnySpace]]:
    if isinstance(space, spaces.Dict):
        return [entry for key, sub in space.spaces.items() for entry in _walk(sub, (*path, key))]
    if isinstance(space, spaces.Tuple):
        return [entry for index, sub in enumerate(space.spaces) for entry in _walk(sub, (*path, index))]
    return [(path, space)]


def _distinct(leaves: list[Leaf], what: str) -> tuple[Leaf, ...]:
    if not leaves:
        raise UnsupportedSpace(f"the {what} space is empty: it has no entry to learn from or to act with")
    seen: dict[str, Path] = {}
    for leaf in leaves:
        if leaf.key in seen:
            raise UnsupportedSpace(f"two {what} entries would both be called {leaf.key!r}: rename one of them")
        seen[leaf.key] = leaf.path
    return tuple(leaves)


def _flat_observation(space: AnySpace, what: str) -> AnySpace:
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8:
            if len(space.shape) == 2 and min(space.shape) >= GREY_IMAGE_SIDE:
                return spaces.Box(space.low[..., None], space.high[..., None], dtype=np.uint8)
            return space
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, space.shape, np.float32)
    return _from_zero(space, what)


def _flat_action(space: AnySpace, what: str) -> AnySpace:
    if isinstance(space, spaces.Box):
        return spaces.Box(-1.0, 1.0, space.shape, np.float32)
    return _from_zero(space, what)


def _from_zero(space: AnySpace, what: str) -> AnySpace:
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return space
    raise UnsupportedSpace(f"the {what} has the space {type(space).__name__}: supported are {SUPPORTED}")


Convert = Callable[[Array], Array]


class ObservationCodec:
    """Flattens batches of observations of one space."""

    def __init__(self, space: AnySpace) -> None:
        self.leaves = observation_leaves(space)
        self.space: dict[str, AnySpace] = {leaf.key: leaf.flat for leaf in self.leaves}
        self._entries = [(leaf.key, leaf.path, _observation_convert(leaf)) for leaf in self.leaves]

    def flatten(self, batch: Any) -> dict[str, Array]:
        """A batch as vector environments return it, ``(N, ...)`` in every entry, by flat key.

        Entries that need no conversion are the very arrays of ``batch``, not copies.
        """
        flat = {}
        for key, path, convert in self._entries:
            value = batch
            for step in path:
                value = value[step]
            flat[key] = value if convert is None else convert(value)
        return flat

    def unflatten(self, flat: Mapping[str, Array]) -> Any:
        """The batch in the structure and the dtypes of the environment's own space."""
        return _nest([(leaf.path, _observation_restore(leaf, flat[leaf.key])) for leaf in self.leaves])


def _observation_convert(leaf: Leaf) -> Convert | None:
    space, flat = leaf.space, leaf.flat
    if isinstance(space, spaces.Box):
        if space.shape != flat.shape:
            return lambda value: np.asarray(value)[..., None]
        if space.dtype != flat.dtype:
            return lambda value: np.asarray(value, dtype=np.float32)
        return None
    start = _start(space)
    return (lambda value: value - start) if np.any(start) else None


def _observation_restore(leaf: Leaf, value: Array) -> Array:
    space = leaf.space
    if isinstance(space, spaces.Box):
        value = value[..., 0] if space.shape != leaf.flat.shape else value
        return value.astype(space.dtype)
    return (value + _start(space)).astype(space.dtype)


def _start(space: AnySpace) -> Array:
    """What a discrete space counts from."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return np.asarray(space.start)
    return np.zeros((), np.int64)


class ActionCodec:
    """Turns what an agent chose into what the environments execute, and into what is stored."""

    def __init__(self, space: AnySpace) -> None:
        self.leaves = action_leaves(space)
        self.space: dict[str, AnySpace] = {leaf.key: leaf.flat for leaf in self.leaves}
        self._scales = {leaf.key: _Scale(leaf.space) for leaf in self.leaves if isinstance(leaf.space, spaces.Box)}

    def unflatten(self, actions: Mapping[str, Array]) -> tuple[Any, dict[str, Array]]:
        """What to execute, in the environment's own structure, and the actions as they are then stored.

        ``actions`` are ``(N, ...)``: boxes are clipped to [-1, 1] (and rounded where the environment's box holds
        integers), so that what is stored is what is executed.
        """
        stored, entries = {}, []
        for leaf in self.leaves:
            scale = self._scales.get(leaf.key)
            if scale is None:
                stored[leaf.key] = actions[leaf.key]
                executed = (actions[leaf.key] + _start(leaf.space)).astype(leaf.space.dtype, copy=False)
            else:
                executed, stored[leaf.key] = scale.execute(actions[leaf.key])
            entries.append((leaf.path, executed))
        return _nest(entries), stored

    def flatten(self, batch: Any) -> dict[str, Array]:
        """The stored form of a batch of the environment's own actions: demonstrations, imported data."""
        flat = {}
        for leaf in self.leaves:
            value = batch
            for step in leaf.path:
                value = value[step]
            scale = self._scales.get(leaf.key)
            flat[leaf.key] = np.asarray(value) - _start(leaf.space) if scale is None else scale.normalise(value)
        return flat

    def zeros(self, batch: int) -> dict[str, Array]:
        """Actions ``(N, ...)`` as rows hold them where none was executed."""
        return {key: np.zeros((batch, *_shape(space)), action_dtype(space)) for key, space in self.space.items()}

    def sample(
        self, rng: np.random.Generator, batch: int, masks: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Uniform actions ``(N, ...)``; ``masks`` ``(N, n)`` limit Discrete actions, by key, to their true entries."""
        masks = masks or {}
        return {key: _sample(space, rng, batch, masks.get(key)) for key, space in self.space.items()}


def _shape(space: AnySpace) -> tuple[int, ...]:
    return space.shape or ()


def action_dtype(space: AnySpace) -> np.dtype[Any]:
    """What actions of ``space`` are stored as: float32 for boxes, int64 for all others."""
    return np.dtype(np.float32 if isinstance(space, spaces.Box) else np.int64)


def _sample(space: AnySpace, rng: np.random.Generator, batch: int, mask: Array | None) -> Array:
    if isinstance(space, spaces.Discrete):
        if mask is None or mask.shape != (batch, space.n):
            return rng.integers(int(space.n), size=batch)
        legal = np.where(mask.astype(bool).any(axis=1, keepdims=True), mask.astype(bool), True)
        choice: Array = np.argmax(rng.random(legal.shape) * legal, axis=1)
        return choice
    if isinstance(space, spaces.MultiDiscrete):
        nvec = np.asarray(space.nvec)
        drawn: Array = (rng.random((batch, *nvec.shape)) * nvec).astype(np.int64)
        return drawn
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(2, size=(batch, *_shape(space)))
    return rng.uniform(-1.0, 1.0, (batch, *_shape(space))).astype(np.float32)


class _Scale:
    """[-1, 1] to a box and back; dimensions without finite bounds are passed on unscaled."""

    def __init__(self, box: spaces.Box) -> None:
        bounded = np.isfinite(box.low) & np.isfinite(box.high)
        self.dtype = box.dtype
        self.low = np.where(bounded, box.low, -1.0).astype(np.float64)
        self.high = np.where(bounded, box.high, 1.0).astype(np.float64)
        self.integral = np.issubdtype(box.dtype, np.integer)
        self.identity = bool((self.low == -1.0).all() and (self.high == 1.0).all()) and not self.integral

    def execute(self, actions: Array) -> tuple[Array, Array]:
        stored = np.minimum(np.maximum(actions, np.float32(-1.0)), np.float32(1.0))
        if self.identity:
            return stored.astype(self.dtype, copy=False), stored
        executed = self.low + (stored + 1.0) * 0.5 * (self.high - self.low)
        if self.integral:
            executed = np.rint(executed)
        executed = np.minimum(np.maximum(executed, self.low), self.high)
        return executed.astype(self.dtype), self.normalise(executed) if self.integral else stored

    def normalise(self, executed: Any) -> Array:
        width = self.high - self.low
        value = 2.0 * (np.asarray(executed, np.float64) - self.low) / np.where(width > 0, width, 1.0) - 1.0
        return np.clip(np.where(width > 0, value, 0.0), -1.0, 1.0).astype(np.float32)


def _nest(entries: list[tuple[Path, Array]]) -> Any:
    """Entries by path as nested dicts and tuples; a single entry with an empty path is itself."""
    if len(entries) == 1 and not entries[0][0]:
        return entries[0][1]
    groups: dict[str | int, list[tuple[Path, Array]]] = {}
    for path, value in entries:
        groups.setdefault(path[0], []).append((path[1:], value))
    nested = {key: _nest(group) for key, group in groups.items()}
    return tuple(nested.values()) if all(isinstance(key, int) for key in nested) else nested

"""One policy step as named arrays, for protocols that know tensors and not spaces: MLflow's and ONNX's.

In: the observations by flat key, in the environment's own dtypes and units, ``is_first`` ``(N,)`` bool (true where an
episode begins: the state there counts as zero), and ``policy_state/<key>``. Out: ``action`` or ``action/<key>``, in
the environment's own dtypes and units, and ``policy_state/<key>`` to pass in with the next observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from oneiros.platform.export.acting import Array, ExportedPolicy, State

IS_FIRST = "is_first"
STATE = "policy_state/"

Shapes = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape, without the leading ``N``, of each named array."""


def input_shapes(policy: ExportedPolicy) -> Shapes:
    """What a step takes."""
    shapes: Shapes = {
        leaf.key: (np.dtype(leaf.space.dtype), tuple(leaf.space.shape or ())) for leaf in policy.observations.leaves
    }
    shapes[IS_FIRST] = (np.dtype(bool), ())
    return shapes | state_shapes(policy)


def output_shapes(policy: ExportedPolicy) -> Shapes:
    """What a step returns."""
    shapes: Shapes = {
        leaf.key: (np.dtype(leaf.space.dtype), tuple(leaf.space.shape or ())) for leaf in policy.actions.leaves
    }
    return shapes | state_shapes(policy)


def state_shapes(policy: ExportedPolicy) -> Shapes:
    """The recurrent state."""
    return {f"{STATE}{key}": (value.dtype, value.shape[1:]) for key, value in policy.initial_state().items()}


def first_step(policy: ExportedPolicy, batch: int = 1) -> dict[str, Array]:
    """The inputs of a first step: some observation, an empty state."""
    inputs = {key: np.zeros((batch, *shape), dtype) for key, (dtype, shape) in input_shapes(policy).items()}
    for leaf in policy.observations.leaves:
        leaf.space.seed(0)
        inputs[leaf.key] = np.stack([np.asarray(leaf.space.sample(), leaf.space.dtype) for _ in range(batch)])
    return inputs | {IS_FIRST: np.ones(batch, bool)}


def read_step(policy: ExportedPolicy, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], State]:
    """Observations and state out of named arrays."""
    shapes = input_shapes(policy)
    arrays = {key: np.asarray(inputs[key], dtype) for key, (dtype, _) in shapes.items() if key != IS_FIRST}
    state = {key.removeprefix(STATE): value for key, value in arrays.items() if key.startswith(STATE)}
    return {key: value for key, value in arrays.items() if not key.startswith(STATE)}, state


def write_step(action: Mapping[str, Array], state: State) -> dict[str, Array]:
    """Actions and state as named arrays."""
    return {**action, **{f"{STATE}{key}": value for key, value in state.items()}}

"""The policy step as an ONNX graph, from raw observations to actions in the environment's units.

Its inputs and outputs are those of ``step_format`` (``next_policy_state/...`` come out), and besides ``explore``
``(N,)`` bool (true where the action is sampled) and the noise that sampling takes, ``noise/uniform/...`` on [0, 1) and
``noise/normal/...``: the graph itself draws nothing. The written graph is run in onnxruntime beside the policy before
it is kept.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import ExplicitPolicy, Field
from oneiros.envs.spaces import Leaf
from oneiros.platform.export.acting import Array, ExportedPolicy
from oneiros.platform.export.policy_folder import ExportError
from oneiros.platform.export.step_format import IS_FIRST, STATE, first_step, input_shapes, output_shapes
from oneiros.platform.training.policy_file import load_policy
from torch import Tensor, nn

NOISE = "noise/"
EXPLORE = "explore"
NEXT = "next_"
TOLERANCE = 1e-4
"""Largest difference, absolute or relative to the value, between onnxruntime and PyTorch for one step."""
CHECKED_STEPS = 8


class EnvironmentStep(nn.Module):
    """``step_module`` between an environment's own observations and actions; tensors go by position."""

    def __init__(self, policy: ExportedPolicy, step: nn.Module, noise: Mapping[str, Field]) -> None:
        super().__init__()
        self.step = step
        self.observed, self.acted = policy.observations.leaves, policy.actions.leaves
        self.inputs = [*input_shapes(policy), EXPLORE, *(f"{NOISE}{key}" for key in noise)]
        self.outputs = [_after(key) for key in output_shapes(policy)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the tensors that ``inputs`` names to those that ``outputs`` names."""
        given = dict(zip(self.inputs, tensors, strict=True))
        obs = {leaf.key: _observed(leaf, given[leaf.key]) for leaf in self.observed}
        state = {key.removeprefix(STATE): value for key, value in given.items() if key.startswith(STATE)}
        noise = {key.removeprefix(NOISE): value for key, value in given.items() if key.startswith(NOISE)}
        action, following = self.step(obs, given[IS_FIRST], state, noise, given[EXPLORE])
        named = {leaf.key: _acted(leaf, action[leaf.key]) for leaf in self.acted}
        named |= {_after(f"{STATE}{key}"): value for key, value in following.items()}
        return tuple(named[key] for key in self.outputs)


def write_graph(directory: Path, file: Path) -> dict[str, Any]:
    """Write the policy that lies in ``directory`` to ``file``, and return what the manifest says of the graph.

    Raises ``ExportError`` without onnx and onnxruntime, for an algorithm that has no ``step_module``, and when
    onnxruntime does not agree with PyTorch within ``TOLERANCE``.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ExportError(f"ONNX export needs {', '.join(missing)}: pip install 'oneiros[onnx]'")
    acting, manifest = load_policy(directory)
    if not isinstance(acting, ExplicitPolicy):
        raise ExportError(f"the algorithm {manifest.algorithm} has no step_module, which ONNX export is made from")
    policy = ExportedPolicy(acting, manifest)
    module, noise = acting.step_module()
    step = EnvironmentStep(policy, module, noise).eval()
    inputs = tuple(torch.from_numpy(value) for value in _inputs(policy, step, noise, batch=3).values())
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            step,
            inputs,
            input_names=step.inputs,
            output_names=step.outputs,
            dynamic_shapes=(tuple({0: torch.export.Dim("N")} for _ in inputs),),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)
    return {
        "inputs": {key: [str(dtype), *shape] for key, (dtype, shape) in _shapes(policy, noise).items()},
        "outputs": {_after(key): [str(dtype), *shape] for key, (dtype, shape) in output_shapes(policy).items()},
        "tolerance": TOLERANCE,
        "difference": _compare(policy, step, noise, file),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its progress, of libraries that it does not need, and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _after(key: str) -> str:
    """The name of an output: a graph cannot have an input and an output of one name."""
    return f"{NEXT}{key}" if key.startswith(STATE) else key


def _shapes(policy: ExportedPolicy, noise: Mapping[str, Field]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    shapes = input_shapes(policy) | {EXPLORE: (np.dtype(bool), ())}
    return shapes | {f"{NOISE}{key}": (field.dtype, field.shape) for key, field in noise.items()}


def _inputs(policy: ExportedPolicy, step: EnvironmentStep, noise: Mapping[str, Field], batch: int) -> dict[str, Array]:
    """A first step, half of whose environments explore, with noise of the right kinds."""
    generator = np.random.default_rng(0)
    inputs = first_step(policy, batch) | {EXPLORE: np.arange(batch) % 2 == 0}
    for key, field in noise.items():
        draw = generator.random if key.startswith("uniform/") else generator.standard_normal
        inputs[f"{NOISE}{key}"] = draw((batch, *field.shape)).astype(field.dtype)
    return {key: inputs[key] for key in step.inputs}


def _compare(policy: ExportedPolicy, step: EnvironmentStep, noise: Mapping[str, Field], file: Path) -> float:
    """The largest difference between onnxruntime and PyTorch over some steps of another batch size."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = _inputs(policy, step, noise, batch=5)
    known = {entry.name for entry in session.get_inputs()}
    worst = 0.0
    for _ in range(CHECKED_STEPS):
        with torch.no_grad():
            expected = step(*(torch.from_numpy(np.array(inputs[key])) for key in step.inputs))
        found = session.run(step.outputs, {key: value for key, value in inputs.items() if key in known})
        for key, ours, theirs in zip(step.outputs, expected, found, strict=True):
            gap = np.abs(ours.numpy().astype(np.float64) - np.asarray(theirs, np.float64))
            worst = max(worst, float((gap / np.maximum(1.0, np.abs(theirs))).max(initial=0.0)))
            if worst > TOLERANCE:
                raise ExportError(f"onnxruntime's {key!r} differs by {worst:.2g} from PyTorch's, more than {TOLERANCE}")
        following = dict(zip(step.outputs, found, strict=True))
        inputs |= {key: following[_after(key)] for key in inputs if key.startswith(STATE)}
        inputs[IS_FIRST] = np.zeros(5, bool)
    return worst


def _observed(leaf: Leaf, value: Tensor) -> Tensor:
    """As ``envs.spaces.ObservationCodec`` does it, on tensors."""
    if isinstance(leaf.space, spaces.Box):
        value = value if leaf.space.dtype == np.uint8 else value.float()
        return value[..., None] if leaf.space.shape != leaf.flat.shape else value
    return value.long() - _start(leaf)


def _acted(leaf: Leaf, value: Tensor) -> Tensor:
    """As ``envs.spaces.ActionCodec`` does it, on tensors."""
    dtype = torch.from_numpy(np.zeros((), leaf.space.dtype)).dtype
    if not isinstance(leaf.space, spaces.Box):
        return (value + _start(leaf)).to(dtype)
    bounded = np.isfinite(leaf.space.low) & np.isfinite(leaf.space.high)
    low = torch.from_numpy(np.where(bounded, leaf.space.low, -1.0).astype(np.float64))
    high = torch.from_numpy(np.where(bounded, leaf.space.high, 1.0).astype(np.float64))
    executed = low + (value.double().clamp(-1.0, 1.0) + 1.0) * 0.5 * (high - low)
    if np.issubdtype(leaf.space.dtype, np.integer):
        executed = executed.round()
    return torch.minimum(torch.maximum(executed, low), high).to(dtype)


def _start(leaf: Leaf) -> Tensor:
    starts = leaf.space.start if isinstance(leaf.space, spaces.Discrete | spaces.MultiDiscrete) else 0
    return torch.as_tensor(np.asarray(starts, np.int64))

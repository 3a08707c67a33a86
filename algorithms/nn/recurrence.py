"""Weight gradients of the layers that a recurrence applies at every step: one product each, after its backward pass.

Autograd would form a small product at every step, round it to the compute dtype and add it to the sum of those before.
Here the weights are constants of a step, and what a layer adds to its product, the bias, is slice ``t`` of one tensor,
its *tap*. The gradient of a tap is that of the layer's outputs at all steps; with all inputs it makes the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from oneiros.algorithms.nn.layers import BlockLinear, Linear, NormSiLU
from torch import Tensor

Tapped = Linear | BlockLinear


class _Tap(torch.autograd.Function):
    """``bias`` as a tensor of the ``shape`` of ``T`` outputs; the gradients of weight and bias follow from its own."""

    @staticmethod
    def forward(ctx: Any, inputs: list[Tensor], shape: tuple[int, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.inputs, ctx.biased = inputs, bias is not None
        if bias is None:
            return weight.new_zeros(()).expand(shape)
        return bias.detach().view(*shape[1:-2], 1, -1).expand(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, Tensor | None]:
        inputs = torch.cat(ctx.inputs)
        if grad.ndim == 4:  # (T, blocks, N, outputs of a block)
            grad = grad.transpose(0, 1).flatten(1, 2)
            blocks = inputs.view(inputs.shape[0], grad.shape[0], -1).permute(1, 2, 0)
            return None, None, torch.bmm(blocks, grad), grad.sum(1).flatten() if ctx.biased else None
        grad = grad.flatten(0, 1)
        return None, None, grad.t() @ inputs, grad.sum(0) if ctx.biased else None


class Taps:
    """The taps of ``layers`` for ``steps`` steps of ``rows`` rows in ``dtype``, and what the layers have read."""

    def __init__(self, layers: Sequence[Tapped], steps: int, rows: int, dtype: torch.dtype):
        self.inputs: list[list[Tensor]] = [[] for _ in layers]
        taps = []
        for layer, inputs in zip(layers, self.inputs, strict=True):
            shape = (steps, *layer.tap_shape(rows))
            tap: Tensor = _Tap.apply(inputs, shape, *layer.weights(dtype))  # type: ignore[no-untyped-call]
            taps.append(tap.unbind(0))
        self.steps: list[tuple[Tensor, ...]] = list(zip(*taps, strict=True))

    def record(self, inputs: Sequence[Tensor]) -> None:
        """Remember what each layer read at a step."""
        for seen, value in zip(self.inputs, inputs, strict=True):
            seen.append(value)


@contextmanager
def tapped(layers: Sequence[Tapped], taps: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Inside, each of ``layers`` works once, its tap for a bias; yields a list that holds the inputs afterwards."""
    inputs: list[Tensor] = []
    for layer, tap in zip(layers, taps, strict=True):
        layer.tap = tap
    try:
        yield inputs
        for layer in layers:
            assert layer.read is not None, "a tapped layer was not used"
            inputs.append(layer.read)
    finally:
        for layer in layers:
            layer.tap = layer.read = None


def scale_taps(norms: Sequence[NormSiLU], steps: int, rows: int) -> list[tuple[Tensor, ...]]:
    """For each step, the scale of each of ``norms`` once a row ``(N, units)``: their gradients are summed only once."""
    taps = [norm.scale.expand(steps, rows, -1).unbind(0) for norm in norms]
    return list(zip(*taps, strict=True))


@contextmanager
def scaled(norms: Sequence[NormSiLU], taps: Sequence[Tensor]) -> Iterator[None]:
    """Inside, each of ``norms`` scales by its tap; without any taps, as ever."""
    for norm, tap in zip(norms, taps, strict=False):
        norm.tap = tap
    try:
        yield
    finally:
        for norm in norms:
            norm.tap = None

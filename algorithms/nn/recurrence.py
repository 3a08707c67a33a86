"""Weight gradients of the layers that a recurrence applies at every step: one product each, after its backward pass.

Autograd would form a small product at every step, round it to the compute dtype and add it to the sum of those before.
Here the weights are constants of a step, and what a layer adds to its product, the bias, is slice ``t`` of one tensor,
its *tap*. The gradient of a tap is that of the layer's outputs at all steps; with all inputs it makes the gradients.
A step is written once, for any way through its layers (``Plain``, ``Tapping``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from oneiros.algorithms.nn.layers import Block, BlockLinear, Linear, NormSiLU
from torch import Tensor

TappedLayer = Linear | BlockLinear


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

    def __init__(self, layers: Sequence[TappedLayer], steps: int, rows: int, dtype: torch.dtype):
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


def scale_taps(norms: Sequence[NormSiLU], steps: int, rows: int) -> list[tuple[Tensor, ...]]:
    """For each step, the scale of each of ``norms`` once a row ``(N, units)``: their gradients are summed only once."""
    taps = [norm.scale.expand(steps, rows, -1).unbind(0) for norm in norms]
    return list(zip(*taps, strict=True))


class Plain:
    """How a step of a recurrence goes through its layers and norms: each as it is."""

    def layer(self, layer: TappedLayer, x: Tensor) -> Tensor:
        """Apply ``layer``."""
        y: Tensor = layer(x)
        return y

    def norm(self, norm: NormSiLU, x: Tensor) -> Tensor:
        """Apply ``norm``."""
        y: Tensor = norm(x)
        return y

    def block(self, block: Block, x: Tensor) -> Tensor:
        """Apply ``block``: its layer, then its norm."""
        return self.norm(block.norm, self.layer(block.linear, x))


PLAIN = Plain()


class Tapping(Plain):
    """Goes through layers with the next of ``taps`` each, and through norms with the next of ``scales`` if given.

    ``read`` holds what each layer read, without its graph.
    """

    def __init__(self, taps: Sequence[Tensor], scales: Sequence[Tensor] = ()):
        self.taps, self.scales, self.normed = taps, scales, 0
        self.read: list[Tensor] = []

    def layer(self, layer: TappedLayer, x: Tensor) -> Tensor:
        """Apply ``layer`` with its tap for a bias."""
        tap = self.taps[len(self.read)]
        self.read.append(x.detach())
        return layer.tapped(x, tap)

    def norm(self, norm: NormSiLU, x: Tensor) -> Tensor:
        """Apply ``norm``, with the scale repeated for every row where there are such."""
        if not self.scales:
            return super().norm(norm, x)
        self.normed += 1
        return norm.scaled(x, self.scales[self.normed - 1])

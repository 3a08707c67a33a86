"""Layers with float32 master weights and, where the compute dtype is lower, a copy refreshed once per update.

A layer picks its weights by the dtype of its input, so the same layer can serve a float32 recurrence and a bfloat16
imagination in one update. ``algorithms.nn.weights.Weights`` owns the master buffer and the copies.

Initialisation (DreamerV3): normal truncated at two deviations with std ``1.1368 / sqrt(fan_in)``, biases zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-4


def truncated_normal_(weight: Tensor, fan_in: int, scale: float) -> None:
    """Fill ``weight`` in place with DreamerV3's initialisation; ``scale`` 0 gives exact zeros."""
    std = 1.1368 / math.sqrt(fan_in)
    with torch.no_grad():
        nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std).mul_(scale)


class Layer(nn.Module):
    """A layer with ``weight`` and ``bias`` parameters and, after ``Weights.refresh``, low-precision copies of both."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, outputs: int, bias: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.low_weight: Tensor | None = None
        self.low_bias: Tensor | None = None

    def weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias in ``dtype``: the masters for float32, else this update's copies."""
        if dtype == torch.float32:
            return self.weight, self.bias
        assert self.low_weight is not None, "Weights.refresh() was not called"
        return self.low_weight, self.low_bias


class _Recalled(torch.autograd.Function):
    """A linear layer whose output is known already: only the gradient is left to be formed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        return grad @ weight if ctx.needs_input_grad[0] else None, grad.t() @ x, grad.sum(0), None


class Linear(Layer):
    """A dense layer. ``fan_in`` differs from ``inputs`` where two layers share one sum."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0, fan_in: int | None = None, bias: bool = True):
        super().__init__(outputs, bias)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        truncated_normal_(self.weight, fan_in or inputs, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        weight, bias = self.weights(x.dtype)
        if bias is not None and x.dtype != torch.float32 and torch.compiler.is_compiling() and x.device.type == "cpu":
            # The sum is part of whatever follows. (In float32 the compiler would put the two together again.)
            return (F.linear(x, weight).float() + bias).to(x.dtype)
        return F.linear(x, weight, bias)

    def tapped(self, x: Tensor, tap: Tensor) -> Tensor:
        """``forward`` of ``(N, inputs)`` with ``tap`` for a bias and constant weights; see ``recurrence``."""
        weight = self.weights(x.dtype)[0].detach()
        if x.device.type == "cpu":
            return torch.addmm(tap, x, weight.t())
        # A GPU would copy the tap first; apart, what comes next adds it, if that is compiled.
        return x @ weight.t() + tap

    def recall(self, x: Tensor, out: Tensor) -> Tensor:
        """``forward`` of ``(N, inputs)``, which put out ``out`` ``(N, outputs)`` before, now with gradients."""
        y: Tensor = _Recalled.apply(x, *self.weights(x.dtype), out)  # type: ignore[no-untyped-call]
        return y

    def tap_shape(self, rows: int) -> tuple[int, ...]:
        """The shape of a tap for ``rows`` rows: ``(N, outputs)``."""
        return rows, self.weight.shape[0]


class BlockLinear(Layer):
    """A block-diagonal linear layer; ``fan_in`` counts the inputs of all blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int, fan_in: int | None = None, bias: bool = True):
        super().__init__(outputs, bias)
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{inputs} inputs and {outputs} outputs do not divide into {blocks} blocks.")
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        truncated_normal_(self.weight, fan_in or inputs, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs)`` to ``(N, outputs)``, block by block."""
        weight, bias = self.weights(x.dtype)
        blocks = self._split(x)
        if bias is None:
            return self._join(torch.bmm(blocks, weight))
        bias = bias.view(self.blocks, 1, -1)
        if torch.compiler.is_compiling():
            # The sum is part of whatever follows, and costs no pass of its own.
            return self._join(torch.bmm(blocks, weight) + bias)
        return self._join(torch.baddbmm(bias, blocks, weight))

    def tapped(self, x: Tensor, tap: Tensor) -> Tensor:
        """``forward`` with ``tap`` for a bias and constant weights; see ``recurrence``."""
        weight, blocks = self.weights(x.dtype)[0].detach(), self._split(x)
        if x.device.type == "cpu":
            return self._join(torch.baddbmm(tap, blocks, weight))
        return self._join(torch.bmm(blocks, weight) + tap)

    def _split(self, x: Tensor) -> Tensor:
        blocks = x.view(x.shape[0], self.blocks, -1).transpose(0, 1)
        if torch.compiler.is_compiling() and x.device.type == "cpu":
            # Whatever computes x then writes it block by block; oneDNN would copy it.
            return blocks.contiguous()
        return blocks

    def _join(self, y: Tensor) -> Tensor:
        return y.transpose(0, 1).reshape(y.shape[1], -1)

    def tap_shape(self, rows: int) -> tuple[int, ...]:
        """The shape of a tap for ``rows`` rows: ``(blocks, N, outputs of a block)``."""
        return self.blocks, rows, self.weight.shape[2]


class Conv(Layer):
    """A 5x5 convolution of stride 1 with same padding, ``(N, C, H, W) -> (N, outputs, H, W)``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5):
        super().__init__(outputs, bias=True)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.padding = kernel // 2
        truncated_normal_(self.weight, inputs * kernel * kernel, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        weight, bias = self.weights(x.dtype)
        return F.conv2d(x, weight, bias, padding=self.padding)


def _normed(x: Tensor, reciprocal: Tensor) -> Tensor:
    """Their product in float32, in memory of its own; of two dtypes it would take twice as long as with a cast."""
    return x * reciprocal if x.dtype == torch.float32 else x.float().mul_(reciprocal)


def _norm_silu(x: Tensor, scale: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The output and the reciprocal root mean square, for ``scale`` shaped to broadcast."""
    square = torch.linalg.vector_norm(x, dim=axis, keepdim=True, dtype=torch.float32).square_()
    reciprocal = square.div_(x.shape[axis]).add_(NORM_EPS).rsqrt_()
    return F.silu(_normed(x, reciprocal).mul_(scale), inplace=True).to(x.dtype), reciprocal


class _NormSiLU(torch.autograd.Function):
    """RMSNorm and SiLU with the gradient in closed form: a third of the passes over memory that autograd makes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, axis: int) -> Tensor:
        out, reciprocal = _norm_silu(x, scale, axis)
        ctx.save_for_backward(x, scale, reciprocal)
        ctx.axis = axis
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, reciprocal = ctx.saved_tensors
        normed = _normed(x, reciprocal)
        inner = torch.ops.aten.silu_backward(grad.float(), normed * scale)
        others = [i for i in range(x.ndim) if i != ctx.axis % x.ndim]
        product = inner * normed
        # Of scales that every row has one of, as a tap, each has a gradient of its own.
        d_scale = product.clone() if scale.ndim == x.ndim else product.sum(others).view(scale.shape)
        mean = product.mul_(scale).mean(ctx.axis, keepdim=True)
        inner = inner.mul_(scale).addcmul_(normed, mean, value=-1).mul_(reciprocal)
        return inner.to(x.dtype), d_scale, None


class NormSiLU(nn.Module):
    """RMSNorm (eps 1e-4, in float32, scale only) followed by SiLU, over the last axis or the channels of an image."""

    def __init__(self, units: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(..., units)`` or ``(N, units, H, W)``; the result keeps the input's dtype."""
        return self.scaled(x, self.scale[:, None, None], 1) if x.ndim == 4 else self.scaled(x, self.scale)

    def scaled(self, x: Tensor, scale: Tensor, axis: int = -1) -> Tensor:
        """``forward`` over ``axis`` with a ``scale`` that may be one for every row; see ``recurrence``."""
        if torch.compiler.is_compiling():
            square = torch.linalg.vector_norm(x, dim=axis, keepdim=True, dtype=torch.float32).square()
            return F.silu(x * torch.rsqrt(square / x.shape[axis] + NORM_EPS) * scale).to(x.dtype)
        if not torch.is_grad_enabled():
            return _norm_silu(x, scale, axis)[0]
        out: Tensor = _NormSiLU.apply(x, scale, axis)  # type: ignore[no-untyped-call]
        return out


class Block(nn.Module):
    """Linear, RMSNorm, SiLU."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.linear = Linear(inputs, units)
        self.norm = NormSiLU(units)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., units)``."""
        out: Tensor = self.norm(self.linear(x))
        return out


class MLP(nn.Module):
    """``layers`` blocks of ``units``, then, if ``outputs`` is given, a linear layer of initial scale ``scale``."""

    def __init__(self, inputs: int, layers: int, units: int, outputs: int | None = None, scale: float = 1.0):
        super().__init__()
        self.blocks: list[Block] = nn.ModuleList(  # type: ignore[assignment]
            [Block(inputs if i == 0 else units, units) for i in range(layers)]
        )
        self.out = Linear(units if layers else inputs, outputs, scale) if outputs is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs or units)``."""
        for block in self.blocks:
            x = block(x)
        return x if self.out is None else self.out(x)

    def remember(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``forward``, and what each linear layer put out, for ``recall``."""
        outputs: list[Tensor] = []
        for block in self.blocks:
            outputs.append(block.linear(x))
            x = block.norm(outputs[-1])
        if self.out is not None:
            x = self.out(x)
            outputs.append(x)
        return x, outputs

    def recall(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``forward`` of the ``x`` that gave ``outputs``, now with gradients; none of its products is formed again."""
        for block, output in zip(self.blocks, outputs, strict=False):
            x = block.norm(block.linear.recall(x, output))
        return x if self.out is None else self.out.recall(x, outputs[-1])


def layers_of(modules: Sequence[nn.Module]) -> list[Layer]:
    """Every ``Layer`` inside ``modules``, in the order of definition."""
    return [m for module in modules for m in module.modules() if isinstance(m, Layer)]


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """What is computed inside passes gradients through ``modules`` and gives none to their parameters."""
    params = [p for module in modules for p in module.parameters() if p.requires_grad]
    layers = [layer for layer in layers_of(modules) if layer.low_weight is not None]
    copies = [(layer.low_weight, layer.low_bias) for layer in layers]
    for param in params:
        param.requires_grad_(False)
    for layer, (weight, bias) in zip(layers, copies, strict=True):
        layer.low_weight = None if weight is None else weight.detach()
        layer.low_bias = None if bias is None else bias.detach()
    try:
        yield
    finally:
        for param in params:
            param.requires_grad_(True)
        for layer, (weight, bias) in zip(layers, copies, strict=True):
            layer.low_weight, layer.low_bias = weight, bias

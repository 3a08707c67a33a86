"""One flat buffer under all parameters of a model, one under their gradients, one under their low-precision copies.

The optimiser then is a handful of operations on three long vectors, an all-reduce is one call, and the cast to the
compute dtype is one copy, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from oneiros.algorithms.nn.layers import layers_of
from torch import Tensor, nn

ALIGNED = 64
"""Numbers at whose multiples low-precision copies begin on a GPU, whose fast products refuse other addresses."""


class _Cast(torch.autograd.Function):
    """Low-precision copies of parameters; their gradients are added to the float32 gradient buffer directly."""

    @staticmethod
    def forward(ctx: Any, weights: Weights, *masters: Tensor) -> tuple[Tensor, ...]:
        ctx.weights = weights
        ctx.set_materialize_grads(False)
        # Not as views of one buffer: the compiler takes several times as long over each of those.
        return tuple(view.data for view in weights.low_views)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
        pairs = [(v, g) for v, g in zip(ctx.weights.cast_grads, grads, strict=True) if g is not None]
        if pairs:
            views, low = [v for v, _ in pairs], [g for _, g in pairs]
            if ctx.weights.flat.device.type == "cpu":
                low = [g.to(torch.float32) for g in low]
            torch._foreach_add_(views, low)
        return (None,) * (1 + len(grads))


class Weights:
    """Gathers the parameters of ``modules`` into flat buffers.

    Attributes: ``flat`` and ``grad``, float32 ``(P,)``; ``params`` and ``grads``, the views into them.
    """

    def __init__(self, modules: Sequence[nn.Module], compute_dtype: torch.dtype, trained: bool = True):
        self.modules = tuple(modules)
        self.dtype = compute_dtype
        self.params: list[Tensor] = [p for module in modules for p in module.parameters()]
        self.sizes = [p.numel() for p in self.params]
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.params])
        self.grad = torch.zeros_like(self.flat) if trained else self.flat.new_zeros(0)
        for param, view in zip(self.params, self._views(self.flat), strict=True):
            param.data = view
            param.requires_grad_(trained)
        self.grads = self._views(self.grad) if trained else []
        for param, view in zip(self.params, self.grads, strict=False):
            param.grad = view.data
        self._low(trained)

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [v.view(p.shape) for v, p in zip(flat.split(self.sizes), self.params, strict=True)]

    def _low(self, trained: bool) -> None:
        self.layers = layers_of(self.modules)
        self.low_views: list[Tensor] = []
        if self.dtype == torch.float32:
            return
        self.masters: list[Tensor] = [p for layer in self.layers for p in (layer.weight, layer.bias) if p is not None]
        self.aligned = self.flat.device.type != "cpu"
        low = self._aligned() if self.aligned else self._packed()
        self.low_views = [low[id(p)] for p in self.masters]
        grads = {id(p): v for p, v in zip(self.params, self.grads, strict=False)}
        self.cast_grads = [grads[id(p)] for p in self.masters] if trained else []

    def _packed(self) -> dict[int, Tensor]:
        """Copies by the parameter's identity, laid out as the parameters are."""
        self.low_flat = self.flat.to(self.dtype)
        return {id(p): v for p, v in zip(self.params, self._views(self.low_flat), strict=True)}

    def _aligned(self) -> dict[int, Tensor]:
        """Copies of the layers' parameters, each at an address of its own."""
        sizes = [-(-p.numel() // ALIGNED) * ALIGNED for p in self.masters]
        parts = torch.zeros(sum(sizes), dtype=self.dtype, device=self.flat.device).split(sizes)
        return {id(p): part[: p.numel()].view(p.shape) for p, part in zip(self.masters, parts, strict=True)}

    def refresh(self) -> None:
        """Recompute the low-precision copies from the masters, connected to them for the next backward pass."""
        if self.dtype == torch.float32:
            return
        with torch.no_grad():
            if self.aligned:
                torch._foreach_copy_(self.low_views, self.masters)
            else:
                self.low_flat.copy_(self.flat)
        copies: Sequence[Tensor] = _Cast.apply(self, *self.masters) if self.grads else self.low_views  # type: ignore[no-untyped-call]
        following = iter(copies)
        for layer in self.layers:
            layer.low_weight = next(following)
            layer.low_bias = None if layer.bias is None else next(following)

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Copy ``tensors``, one per parameter, into the masters."""
        with torch.no_grad():
            for param, tensor in zip(self.params, tensors, strict=True):
                param.copy_(tensor)

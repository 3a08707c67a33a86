"""Weights of their own for every agent: each layer holds those of all agents, and works on everybody's rows at once.

Everywhere in a belief agent, the agents are the last of the leading axes, so that row ``r`` of what a layer reads is
of agent ``r % G``; where an agent is asked about each of ``G`` partners, of agent ``r // G % G``. ``each`` is how many
rows in a row are of one agent: 1, or ``G``. Parameters have the names that shared ones have, and the agents as first
axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from oneiros.algorithms.belief.context import Context
from oneiros.algorithms.belief.minds import FirstOrder
from oneiros.algorithms.nn.layers import NORM_EPS, BlockLinear, Conv, Linear, NormSiLU
from oneiros.algorithms.nn.up_conv import UpConv
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)
ASKED = frozenset({"norm", "block", "action", "mind"})
"""The parts of ``FirstOrder`` that are asked once for each partner."""


def apart(copies: Sequence[M]) -> M:
    """One module that does for agent ``g`` what ``copies[g]`` would; the first of the copies becomes it."""
    return cast(M, _joined(copies, 1))


def clip_apart(weights: Weights) -> None:
    """Have adaptive clipping measure each agent's part of a tensor by itself, as if it were a tensor of its own."""
    weights.params = [part for param in weights.params for part in param.detach().unbind(0)]
    weights.grads = [part for grad in weights.grads for part in grad.unbind(0)]


def _joined(copies: Sequence[nn.Module], each: int) -> nn.Module:
    first, agents = copies[0], len(copies)
    if (layer := LAYERS.get(type(first))) is not None:
        return cast(nn.Module, layer(copies, each))
    if isinstance(first, Context):
        return ApartContext(cast(Sequence[Context], copies))
    asked = isinstance(first, FirstOrder)
    for name, _ in list(first.named_children()):
        rows = agents if asked and name in ASKED else each
        first._modules[name] = _joined([copy.get_submodule(name) for copy in copies], rows)
    for name, _ in list(first.named_parameters(recurse=False)):
        # Broadcast against everybody's rows where it is used; of any other module that would have to be looked up.
        assert asked, f"{type(first).__name__}.{name} has no form for agents apart"
        setattr(first, name, _stacked(copies, name))
    return first


def _stacked(copies: Sequence[Any], name: str) -> nn.Parameter:
    return nn.Parameter(torch.stack([getattr(copy, name).detach() for copy in copies]))


class ApartLayer(nn.Module):
    """What the layers below have in common: ``weight`` ``(G, ...)`` and, if there is one, ``bias`` ``(G, outputs)``."""

    bias: nn.Parameter | None

    def __init__(self, copies: Sequence[Any], each: int) -> None:
        super().__init__()
        self.agents, self.each = len(copies), each
        self.weight = _stacked(copies, "weight")
        self.bias = _stacked(copies, "bias") if copies[0].bias is not None else None

    def _product(self, x: Tensor, weight: Tensor, parts: int) -> Tensor:
        """Rows ``(R, inputs)`` of ``parts`` parts, times the ``weight`` ``(G * parts, ...)`` of agent and part."""
        rows = x.view(-1, self.agents, self.each, parts, x.shape[-1] // parts).permute(1, 3, 0, 2, 4)
        rows = rows.reshape(self.agents * parts, -1, rows.shape[-1])
        if self.bias is None:
            y = torch.bmm(rows, weight)
        else:
            y = torch.baddbmm(self.bias.view(self.agents * parts, 1, -1), rows, weight)
        y = y.view(self.agents, parts, -1, self.each, y.shape[-1]).permute(2, 0, 3, 1, 4)
        return y.reshape(x.shape[0], -1)


class ApartLinear(ApartLayer):
    """``Linear`` with weights ``(G, outputs, inputs)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., inputs)`` to ``(..., outputs)``."""
        y = self._product(x.reshape(-1, x.shape[-1]), self.weight.transpose(1, 2), 1)
        return y.view(*x.shape[:-1], -1)


class ApartBlockLinear(ApartLayer):
    """``BlockLinear`` with weights ``(G, blocks, inputs, outputs)`` of a block."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(R, inputs)`` to ``(R, outputs)``, block by block."""
        return self._product(x.contiguous(), self.weight.flatten(0, 1), self.weight.shape[1])


class ApartConv(ApartLayer):
    """``Conv`` with kernels ``(G, outputs, inputs, 5, 5)``: one convolution, grouped by agent."""

    def __init__(self, copies: Sequence[Conv], each: int) -> None:
        super().__init__(copies, each)
        assert each == 1, "an agent sees one picture"
        self.padding = copies[0].padding

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(R, C, H, W)``."""
        y = F.conv2d(
            self._by_agent(x), self.weight.flatten(0, 1), self._bias(1), padding=self.padding, groups=self.agents
        )
        return y.reshape(x.shape[0], -1, *y.shape[2:])

    def _by_agent(self, x: Tensor) -> Tensor:
        """All agents' channels ``(R / G, G * C, H, W)``."""
        return x.reshape(-1, self.agents * x.shape[1], *x.shape[2:])

    def _bias(self, times: int) -> Tensor | None:
        return None if self.bias is None else self.bias.flatten().repeat_interleave(times)


class ApartUpConv(ApartConv):
    """``UpConv`` with kernels ``(G, outputs, inputs, 5, 5)``."""

    taps: Tensor

    def __init__(self, copies: Sequence[UpConv], each: int) -> None:
        super().__init__(copies, each)
        self.register_buffer("taps", copies[0].taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge and convolve ``(R, C, H, W)``."""
        small = torch.einsum("yak,xbl,goikl->goyxiab", self.taps, self.taps, self.weight).flatten(0, 3)
        y = F.conv2d(self._by_agent(x), small, self._bias(4), padding=1, groups=self.agents)
        y = F.pixel_shuffle(y, 2)
        return y.reshape(x.shape[0], -1, *y.shape[2:])


class ApartNormSiLU(nn.Module):
    """``NormSiLU`` with scales ``(G, units)``."""

    def __init__(self, copies: Sequence[NormSiLU], each: int) -> None:
        super().__init__()
        self.agents, self.each = len(copies), each
        self.scale = _stacked(copies, "scale")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(..., units)`` or pictures ``(R, units, H, W)``."""
        axis, tail = (1, x.shape[1:]) if x.ndim == 4 else (-1, x.shape[-1:])
        normed = x * torch.rsqrt(x.square().mean(axis, keepdim=True) + NORM_EPS)
        scale = self.scale.view(self.agents, 1, -1, *(1,) * (len(tail) - 1))
        return F.silu((normed.reshape(-1, self.agents, self.each, *tail) * scale).view(x.shape))


class ApartContext(nn.Module):
    """``Context`` in which each agent makes what it will of the others' states, and teaches them nothing by it."""

    def __init__(self, copies: Sequence[Context]) -> None:
        super().__init__()
        agents, self.width = len(copies), copies[0].width
        self.embed = _joined([c.embed for c in copies], agents)
        self.query = _joined([c.query for c in copies], 1)
        self.key = _joined([c.key for c in copies], agents)
        self.value = _joined([c.value for c in copies], agents)

    def forward(self, states: Tensor, alive: Tensor) -> Tensor:
        """See ``Context.forward``; gradients reach an agent's own state alone."""
        count, agents, _ = states.shape
        own = torch.eye(agents, dtype=torch.bool, device=states.device)
        seen = torch.where(own[..., None], states[:, None], states[:, None].detach())
        x = self.embed(seen.flatten(0, 2))
        square = (count, agents, agents, self.width)
        query = self.query(x.view(square).diagonal(dim1=1, dim2=2).transpose(1, 2))
        scores = (query[:, :, None] * self.key(x).view(square)).sum(-1) / math.sqrt(self.width)
        heard = ~own & (alive[:, None, :] > 0)
        weights = torch.softmax(scores.masked_fill(~heard, -1e9), -1) * heard
        out: Tensor = (weights[..., None] * self.value(x).view(square)).sum(2)
        return out


LAYERS: dict[type[nn.Module], Any] = {
    Linear: ApartLinear,
    BlockLinear: ApartBlockLinear,
    Conv: ApartConv,
    UpConv: ApartUpConv,
    NormSiLU: ApartNormSiLU,
}

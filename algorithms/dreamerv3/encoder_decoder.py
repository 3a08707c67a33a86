"""From observations to tokens, and from latents back to observations.

Observations arrive flat: images are uint8 ``(H, W, C)``, everything else is a vector, a scalar or a discrete value.
Image sides are padded to a multiple of 16 for the network; the loss sees only the true pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import SpaceDict, UnsupportedSpace
from oneiros.algorithms.nn.distributions import symexp, symlog
from oneiros.algorithms.nn.layers import MLP, Block, BlockLinear, Conv, Linear, NormSiLU
from oneiros.algorithms.nn.up_conv import UpConv
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (2, 3, 4, 4)
STRIDE = 2 ** len(DEPTHS)
DECODER_BLOCKS = 8


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether ``space`` is a uint8 ``(H, W, C)`` box."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def class_counts(space: spaces.Space[Any]) -> list[int]:
    """The number of classes of each discrete component, or an empty list for a continuous space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    return []


def vector_width(space: spaces.Space[Any]) -> int:
    """How many inputs a non-image space takes: one-hots for discrete values."""
    counts = class_counts(space)
    return sum(counts) if counts else int(np.prod(space.shape or (1,)))


def one_hots(value: Tensor, counts: list[int]) -> Tensor:
    """Concatenated float32 one-hots ``(N, sum(counts))`` of integer components ``(N, len(counts))``."""
    value = value.reshape(value.shape[0], len(counts)).long()
    parts = [torch.arange(n, device=value.device) == value[:, i : i + 1] for i, n in enumerate(counts)]
    return torch.cat(parts, -1).float()


def check_observation(key: str, space: spaces.Space[Any]) -> None:
    """Raise ``UnsupportedSpace`` unless the encoder can read ``space``."""
    served = is_image(space) or isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    if isinstance(space, spaces.Box) and len(space.shape) <= 2:
        served = True
    if not served:
        raise UnsupportedSpace(
            f"Observation '{key}' is {space}, which DreamerV3 cannot read; it reads uint8 images (height, width, "
            "channels), boxes of up to two axes, Discrete, MultiDiscrete and MultiBinary, and Dicts of these."
        )


class ImageLayout:
    """How the image keys are stacked into one padded tensor of all their channels."""

    def __init__(self, obs_space: SpaceDict):
        self.keys = [k for k in sorted(obs_space) if is_image(obs_space[k])]
        self.shapes = {k: tuple(obs_space[k].shape or ()) for k in self.keys}
        self.channels = sum(s[2] for s in self.shapes.values())
        sides = zip(*(s[:2] for s in self.shapes.values()), strict=True)
        self.padded = tuple(math.ceil(max(side) / STRIDE) * STRIDE for side in sides)

    def stack(self, obs: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Images ``(N, H, W, C)`` of every key as ``(N, channels, padded H, padded W)`` in [-0.5, 0.5]."""
        parts = []
        for key in self.keys:
            x = obs[key].permute(0, 3, 1, 2).to(dtype) / 255 - 0.5
            bottom, right = self.padded[0] - x.shape[2], self.padded[1] - x.shape[3]
            parts.append(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)
        return torch.cat(parts, 1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """The inverse of ``stack`` for values: ``(N, channels, padded H, padded W)`` to ``(N, H, W, C)`` a key."""
        parts = x.split([s[2] for s in self.shapes.values()], 1)
        return {
            k: part[:, :, : s[0], : s[1]].permute(0, 2, 3, 1)
            for (k, s), part in zip(self.shapes.items(), parts, strict=True)
        }


class Encoder(nn.Module):
    """Images through convolutions with max-pooling, vectors through symlog and an MLP; ``(N, E)`` tokens."""

    def __init__(self, obs_space: SpaceDict, depth: int, units: int, layers: int = 3):
        super().__init__()
        for key, space in obs_space.items():
            check_observation(key, space)
        self.images = ImageLayout(obs_space)
        self.vectors = {k: class_counts(s) for k, s in sorted(obs_space.items()) if not is_image(s)}
        self.tokens = 0
        if self.vectors:
            self.mlp = MLP(sum(vector_width(obs_space[k]) for k in self.vectors), layers, units)
            self.tokens += units
        if self.images.keys:
            widths = [self.images.channels, *(depth * m for m in DEPTHS)]
            self.convs = nn.ModuleList([Conv(i, o) for i, o in pairwise(widths)])
            self.norms = nn.ModuleList([NormSiLU(o) for o in widths[1:]])
            self.tokens += widths[-1] * math.prod(side // STRIDE for side in self.images.padded)

    def forward(self, obs: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Encode ``(N, ...)`` observations in the compute ``dtype``."""
        outs = []
        if self.vectors:
            parts = [
                one_hots(obs[k], counts) if counts else symlog(obs[k].float().reshape(obs[k].shape[0], -1))
                for k, counts in self.vectors.items()
            ]
            outs.append(self.mlp(torch.cat(parts, -1).to(dtype)))
        if self.images.keys:
            x = self.images.stack(obs, dtype)
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = norm(F.max_pool2d(conv(x), 2))
            outs.append(x.flatten(1))
        return torch.cat(outs, -1)


class Decoder(nn.Module):
    """Latents to observations, and the loss of each observation key given them."""

    def __init__(self, obs_space: SpaceDict, deter: int, stoch: int, depth: int, units: int, layers: int = 3):
        super().__init__()
        self.deter = deter
        self.images = ImageLayout(obs_space)
        self.vectors = {k: class_counts(s) for k, s in sorted(obs_space.items()) if not is_image(s)}
        self.shapes = {k: tuple(obs_space[k].shape or ()) for k in self.vectors}
        self.widths = {k: vector_width(obs_space[k]) for k in self.vectors}
        if self.vectors:
            self.mlp = MLP(deter + stoch, layers, units, sum(self.widths.values()))
        if self.images.keys:
            self.base = tuple(side // STRIDE for side in self.images.padded)
            self.depth = depth * DEPTHS[-1]
            spatial = self.depth * math.prod(self.base)
            self.from_deter = BlockLinear(deter, spatial, DECODER_BLOCKS)
            self.from_stoch = nn.Sequential(Block(stoch, 2 * units), Linear(2 * units, spatial))
            self.base_norm = NormSiLU(self.depth)
            widths = [depth * m for m in reversed(DEPTHS)]
            self.convs = nn.ModuleList([UpConv(i, o) for i, o in pairwise(widths)])
            self.norms = nn.ModuleList([NormSiLU(o) for o in widths[1:]])
            self.out = UpConv(widths[-1], self.images.channels)

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        """Decode ``(N, D + K * S)``: images in [0, 1] ``(N, H, W, C)``, symlog vectors or logits ``(N, width)``."""
        outs: dict[str, Tensor] = {}
        if self.vectors:
            parts = self.mlp(feat).float().split(list(self.widths.values()), -1)
            outs.update(zip(self.vectors, parts, strict=True))
        if self.images.keys:
            deter, stoch = feat[:, : self.deter], feat[:, self.deter :]
            x0 = self.from_deter(deter.contiguous()).view(-1, DECODER_BLOCKS, *self.base, self.depth // DECODER_BLOCKS)
            x0 = x0.permute(0, 1, 4, 2, 3).reshape(-1, self.depth, *self.base)
            x1 = self.from_stoch(stoch).view(-1, *self.base, self.depth).permute(0, 3, 1, 2)
            # Pictures lie with their channels last, as the encoder's do, for which processors have the faster kernels.
            x = self.base_norm((x0 + x1).contiguous(memory_format=torch.channels_last))
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = norm(conv(x))
            x = self.out(x)
            outs.update(self.images.split(torch.sigmoid(x.float())))
        return outs

    def losses(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reconstruction loss ``(N,)`` of each key: squared error summed over pixels or symlog entries, or nats."""
        losses: dict[str, Tensor] = {}
        for key, out in self(feat).items():
            if key in self.images.keys:
                losses[key] = (out - obs[key].float() / 255).square().sum((1, 2, 3))
                continue
            counts, target = self.vectors[key], obs[key]
            if counts:
                one_hot, start, nats = one_hots(target, counts), 0, torch.zeros_like(out[:, 0])
                for n in counts:
                    logp = torch.log_softmax(out[:, start : start + n], -1)
                    nats = nats - (one_hot[:, start : start + n] * logp).sum(-1)
                    start += n
                losses[key] = nats
            else:
                losses[key] = (out - symlog(target.float().reshape(target.shape[0], -1))).square().sum(-1)
        return losses

    def predict(self, feat: Tensor) -> dict[str, Tensor]:
        """Decode ``(N, D + K * S)`` to observations in their own units: uint8 images, floats, class indices."""
        obs: dict[str, Tensor] = {}
        for key, out in self(feat).items():
            if key in self.images.keys:
                obs[key] = (out * 255).round().clamp(0, 255).to(torch.uint8)
            elif counts := self.vectors[key]:
                obs[key] = torch.stack([p.argmax(-1) for p in out.split(counts, -1)], -1).view(-1, *self.shapes[key])
            else:
                obs[key] = symexp(out).view(-1, *self.shapes[key])
        return obs

"""The actor: one distribution for each component of the action, from one linear layer.

Actions travel through the model as flat vectors ``(N, A)``: one-hots of discrete components, then continuous values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import SpaceDict, Tensors, UnsupportedSpace
from oneiros.algorithms.dreamerv3.encoder_decoder import class_counts, one_hots
from oneiros.algorithms.nn.distributions import (
    LOG_SQRT_2PI,
    MAX_STD,
    MIN_STD,
    bounded_normal,
    class_probs,
    class_sample,
    normal_entropy,
    normal_log_prob,
    straight_through,
)
from oneiros.algorithms.nn.layers import MLP
from torch import Tensor, nn

ACTION_MASK = "action_mask"


@dataclass(frozen=True)
class Noise:
    """What one action is sampled with: ``uniform`` ``(N, discrete components)`` and ``normal`` ``(N, continuous)``."""

    uniform: Tensor
    normal: Tensor


class ActionLayout:
    """Where each component of the action lies in the flat vector."""

    def __init__(self, action_space: SpaceDict):
        self.space = dict(sorted(action_space.items()))
        self.counts: dict[str, list[int]] = {}
        self.continuous: dict[str, int] = {}
        for key, space in self.space.items():
            if counts := class_counts(space):
                self.counts[key] = counts
            elif isinstance(space, spaces.Box):
                self.continuous[key] = int(np.prod(space.shape or (1,)))
            else:
                raise UnsupportedSpace(
                    f"Action '{key}' is {space}, which DreamerV3 cannot produce; it serves Discrete, MultiDiscrete and "
                    "Box actions, and Dicts of these."
                )
        self.classes = [n for counts in self.counts.values() for n in counts]
        self.discrete_width = sum(self.classes)
        self.continuous_width = sum(self.continuous.values())
        self.width = self.discrete_width + self.continuous_width

    def check_mask(self, space: spaces.Space[Any] | None) -> None:
        """Raise ``UnsupportedSpace`` if there is a mask and it is not one entry a choice of one discrete action."""
        if space is None:
            return
        width = int(np.prod(space.shape or (1,)))
        if self.classes != [width] or self.continuous:
            raise UnsupportedSpace(
                f"'{ACTION_MASK}' has {width} entries, which do not fit the action {dict(self.space)}; there may be "
                "masks of one Discrete action only, one entry a choice."
            )

    def flatten(self, action: Mapping[str, Tensor]) -> Tensor:
        """Replay's actions ``(N, ...)`` a key, as flat float32 vectors ``(N, A)``."""
        parts = [one_hots(action[k], counts) for k, counts in self.counts.items()]
        parts += [action[k].float().reshape(action[k].shape[0], -1) for k in self.continuous]
        return torch.cat(parts, -1)

    def unflatten(self, flat: Tensor) -> Tensors:
        """Flat vectors ``(N, A)`` as actions: int64 classes, float32 values clipped to [-1, 1]."""
        action: Tensors = {}
        start = 0
        for key, counts in self.counts.items():
            index = [part.argmax(-1) for part in flat[:, start : start + sum(counts)].split(counts, -1)]
            action[key] = torch.stack(index, -1).view(-1, *(self.space[key].shape or ()))
            start += sum(counts)
        for key, width in self.continuous.items():
            value = flat[:, start : start + width].float().clamp(-1, 1)
            action[key] = value.reshape(-1, *(self.space[key].shape or ()))
            start += width
        return action


class Actor(nn.Module):
    """``layers`` blocks, then logits of the discrete components and mean and deviation of the continuous ones."""

    def __init__(self, inputs: int, layout: ActionLayout, layers: int, units: int, unimix: float, scale: float = 0.01):
        super().__init__()
        self.layout, self.unimix = layout, unimix
        self.mlp = MLP(inputs, layers, units, layout.discrete_width + 2 * layout.continuous_width, scale)

    def forward(self, feat: Tensor) -> Tensor:
        """Return the parameters ``(N, P)`` of all distributions, float32."""
        out: Tensor = self.mlp(feat)
        return out.float()

    def remember(self, feat: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``forward``, and what ``recall`` takes to give its result gradients."""
        out, outputs = self.mlp.remember(feat)
        return out.float(), outputs

    def recall(self, feat: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """``forward`` of the ``feat`` that gave ``outputs``, at the price of the gradients alone."""
        return self.mlp.recall(feat, outputs).float()

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Noise:
        """Draw noise for actions of leading ``shape``."""
        device = generator.device
        uniform = torch.rand(*shape, len(self.layout.classes), generator=generator, device=device)
        normal = torch.randn(*shape, self.layout.continuous_width, generator=generator, device=device)
        return Noise(uniform, normal)

    def _split(self, params: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        layout = self.layout
        logits, mean, std = params.split([layout.discrete_width, layout.continuous_width, layout.continuous_width], -1)
        parts = logits.split(layout.classes, -1) if layout.classes else ()
        probs = [class_probs(part, mask, self.unimix) for part in parts]
        mean, std = bounded_normal(mean, std)
        return probs, mean, std

    def sample(self, params: Tensor, noise: Noise, mask: Tensor | None = None) -> Tensor:
        """Sample flat actions ``(N, A)``; ``mask`` ``(N, n)`` is 1 where an action is legal.

        The gradient, if one is wanted, is straight-through for classes and that of ``mean + std * noise`` for values.
        """
        probs, mean, std = self._split(params, mask)
        parts = [class_sample(p, uniform) for p, uniform in zip(probs, noise.uniform.unbind(-1), strict=True)]
        if torch.is_grad_enabled():
            parts = [straight_through(one_hot, p) for one_hot, p in zip(parts, probs, strict=True)]
        return torch.cat([*parts, mean + std * noise.normal], -1)

    def mode(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """The most likely flat actions ``(N, A)``."""
        probs, mean, _ = self._split(params, mask)
        best = [torch.nn.functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype) for p in probs]
        return torch.cat([*best, mean], -1)

    def log_prob(self, params: Tensor, action: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log probability ``(N,)`` of flat actions, summed over components."""
        probs, mean, std = self._split(params, mask)
        discrete, continuous = action.split([self.layout.discrete_width, self.layout.continuous_width], -1)
        total = normal_log_prob(mean, std, continuous).sum(-1)
        for p, chosen in zip(probs, discrete.split(self.layout.classes, -1) if probs else (), strict=True):
            total = total + (p.clamp(min=1e-20).log() * chosen).sum(-1)
        return total

    def entropy(self, params: Tensor, mask: Tensor | None = None) -> Tensor:
        """Entropy ``(N,)`` in nats, summed over components."""
        probs, _, std = self._split(params, mask)
        total = normal_entropy(std).sum(-1)
        for p in probs:
            total = total - (p * p.clamp(min=1e-20).log()).sum(-1)
        return total

    def randomness(self, entropy: Tensor) -> Tensor:
        """Where an entropy in nats lies between that of the narrowest policy, 0, and that of the widest, 1."""
        least, most = (
            self.layout.continuous_width * (math.log(std) + 0.5 + LOG_SQRT_2PI) for std in (MIN_STD, MAX_STD)
        )
        return (entropy - least) / (most + sum(math.log(n) for n in self.layout.classes) - least)

"""The actor of all agents: one network, whose outputs are masked to what each agent can do.

``M`` joint states of ``G`` agents; ``D`` discrete and ``C`` continuous action columns, ``A = D + C``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from oneiros.algorithms.belief.seats import ActionColumns
from oneiros.algorithms.nn.distributions import (
    bounded_normal,
    class_probs,
    class_sample,
    normal_entropy,
    normal_log_prob,
)
from oneiros.algorithms.nn.layers import MLP
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Noise:
    """What joint actions are sampled with: ``uniform`` ``(M, G, components)`` and ``normal`` ``(M, G, C)``."""

    uniform: Tensor
    normal: Tensor


class Actor(nn.Module):
    """Features ``(M, G, inputs)`` to the parameters ``(M, G, D + 2 C)`` of every action distribution."""

    def __init__(
        self, inputs: int, columns: ActionColumns, layers: int, units: int, unimix: float, scale: float = 0.01
    ) -> None:
        super().__init__()
        self.columns, self.unimix = columns, unimix
        self.discrete = columns.discrete
        self.continuous = columns.width - columns.discrete
        self.mlp = MLP(inputs, layers, units, self.discrete + 2 * self.continuous, scale)

    def forward(self, feat: Tensor) -> Tensor:
        """Parameters of the distributions of each agent."""
        out: Tensor = self.mlp(feat)
        return out.float()

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Noise:
        """Draw noise for joint actions of leading ``shape``, ``G`` included."""
        device = generator.device
        uniform = torch.rand(*shape, len(self.columns.components), generator=generator, device=device)
        return Noise(uniform, torch.randn(*shape, self.continuous, generator=generator, device=device))

    def probs(self, params: Tensor, legal: Tensor | None) -> list[Tensor]:
        """Probabilities of each component; ``legal`` ``(M, G, D)`` is 1 where an action is."""
        columns = [c.columns for c in self.columns.components]
        return [class_probs(params[..., c], None if legal is None else legal[..., c], self.unimix) for c in columns]

    def sample(self, params: Tensor, noise: Noise, legal: Tensor | None = None) -> Tensor:
        """Sample flat joint actions ``(M, G, A)`` without gradient."""
        drawn = zip(self.columns.components, self.probs(params, legal), noise.uniform.unbind(-1), strict=True)
        parts = [class_sample(p, uniform) * c.owned[:, None] for c, p, uniform in drawn]
        mean, std = self._normal(params)
        return torch.cat([*parts, (mean + std * noise.normal) * self.columns.continuous], -1)

    def mode(self, params: Tensor, legal: Tensor | None = None) -> Tensor:
        """The most likely flat joint actions ``(M, G, A)``."""
        parts = [
            F.one_hot(p.argmax(-1), c.count).to(p.dtype) * c.owned[:, None]
            for c, p in zip(self.columns.components, self.probs(params, legal), strict=True)
        ]
        return torch.cat([*parts, self._normal(params)[0] * self.columns.continuous], -1)

    def expected(self, params: Tensor, legal: Tensor | None = None) -> Tensor:
        """Probabilities of discrete columns and means of continuous ones, as flat joint actions ``(M, G, A)``."""
        parts = [p * c.owned[:, None] for c, p in zip(self.columns.components, self.probs(params, legal), strict=True)]
        return torch.cat([*parts, self._normal(params)[0] * self.columns.continuous], -1)

    def log_prob(self, params: Tensor, action: Tensor, legal: Tensor | None = None) -> Tensor:
        """Log probability ``(M, G)`` of each agent's own part of flat joint actions."""
        mean, std = self._normal(params)
        total = (normal_log_prob(mean, std, action[..., self.discrete :]) * self.columns.continuous).sum(-1)
        for c, p in zip(self.columns.components, self.probs(params, legal), strict=True):
            total = total + (p.clamp(min=1e-20).log() * action[..., c.columns]).sum(-1) * c.owned
        return total

    def entropy(self, params: Tensor, legal: Tensor | None = None) -> Tensor:
        """Entropy ``(M, G)`` in nats of each agent's own action."""
        _, std = self._normal(params)
        total = (normal_entropy(std) * self.columns.continuous).sum(-1)
        for c, p in zip(self.columns.components, self.probs(params, legal), strict=True):
            total = total - (p * p.clamp(min=1e-20).log()).sum(-1) * c.owned
        return total

    def _normal(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = params[..., self.discrete :].chunk(2, -1)
        return bounded_normal(mean, std)

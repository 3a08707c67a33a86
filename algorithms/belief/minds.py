"""What agents believe: of the world (zero order), and of each other (first order).

Every belief of agent i is computed from i's own latent and from nothing else. ``M`` joint states of ``G`` agents, ``F``
the width of an agent's feature, ``Z`` the columns of all belief targets, ``A`` those of all actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from oneiros.algorithms.nn.layers import MLP, Block, Linear, NormSiLU
from torch import Tensor, nn


@dataclass(frozen=True)
class PartnerBeliefs:
    """What i believes of j, for every ordered pair ``(M, G, G, ...)``, as logits; the diagonal means nothing."""

    action: Tensor
    """Of j's next action, ``(..., A)``: logits of discrete columns, values of continuous ones."""
    latent: Tensor
    """Of j's stochastic latent, ``(..., K * S)``."""
    target: Tensor
    """Of j's belief about its own targets, ``(..., Z)``."""


class ZeroOrder(nn.Module):
    """An agent's belief about its targets: ``(M, G, F)`` to logits ``(M, G, Z)``."""

    def __init__(self, features: int, layers: int, units: int, targets: int) -> None:
        super().__init__()
        self.mlp = MLP(features, layers, units, targets)

    def forward(self, feat: Tensor) -> Tensor:
        """Logits of the targets."""
        out: Tensor = self.mlp(feat)
        return out.float()


class FirstOrder(nn.Module):
    """An agent's beliefs about each partner: one trunk an agent, asked once for each partner."""

    def __init__(
        self, features: int, layers: int, units: int, agents: int, actions: int, latent: int, targets: int
    ) -> None:
        super().__init__()
        self.widths = [latent, targets]
        self.trunk = MLP(features, max(1, layers - 1), units)
        self.own = Linear(units, units)
        self.partner = nn.Parameter(torch.randn(agents, units) / units**0.5)
        self.norm = NormSiLU(units)
        self.block = Block(units, units)
        self.action = Linear(units, actions)
        self.mind = Linear(units, sum(self.widths))

    def forward(self, feat: Tensor) -> PartnerBeliefs:
        """Beliefs of all pairs from ``(M, G, F)``; row i depends on the feature of i alone."""
        M, G = feat.shape[:2]
        asked = self._ask(feat)
        latent, target = self.mind(asked).float().view(M, G, G, -1).split(self.widths, -1)
        return PartnerBeliefs(self.action(asked).float().view(M, G, G, -1), latent, target)

    def intents(self, feat: Tensor) -> Tensor:
        """Of all pairs, only what is believed of the next action, ``(M, G, G, A)``."""
        M, G = feat.shape[:2]
        out: Tensor = self.action(self._ask(feat)).float().view(M, G, G, -1)
        return out

    def _ask(self, feat: Tensor) -> Tensor:
        own = self.own(self.trunk(feat))
        out: Tensor = self.block(self.norm((own[:, :, None] + self.partner).flatten(0, 2)))
        return out

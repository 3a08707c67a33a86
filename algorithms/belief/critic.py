"""The centralised critic: what an agent's state is worth, seen from everybody's."""

from __future__ import annotations

import torch
from oneiros.algorithms.belief.context import Context
from oneiros.algorithms.nn.layers import MLP
from torch import Tensor, nn


class Critic(nn.Module):
    """Two-hot logits ``(M, G, bins)`` of features ``(M, G, F)`` and intents ``(M, G, I)``; ``width`` 0 is local."""

    def __init__(self, features: int, intents: int, width: int, layers: int, units: int, bins: int) -> None:
        super().__init__()
        self.context = Context(features, width) if width else None
        self.mlp = MLP(features + intents + width, layers, units, bins, scale=0.0)

    def forward(self, feat: Tensor, intents: Tensor, alive: Tensor) -> Tensor:
        """Judge each agent's state beside those of the others that are ``alive`` ``(M, G)``."""
        inputs = [feat, intents]
        if self.context is not None:
            inputs.append(self.context(feat, alive))
        out: Tensor = self.mlp(torch.cat(inputs, -1))
        return out.float()

"""What the other agents are up to, for those parts of the model that play nature, referee or critic.

The context of agent i is attention over the others. It conditions what i is about to perceive, what it is paid, and
what its state is worth; nothing that i itself remembers or decides by is ever computed from it.
"""

from __future__ import annotations

import math

import torch
from oneiros.algorithms.nn.layers import Block, Linear
from torch import Tensor, nn


class Context(nn.Module):
    """Attention of each of ``G`` agents over the others: ``(M, G, inputs)`` to ``(M, G, width)``."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.embed = Block(inputs, width)
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)

    def forward(self, states: Tensor, alive: Tensor) -> Tensor:
        """Attend to the others that are ``alive`` ``(M, G)``; zeros where there are none."""
        x = self.embed(states)
        scores = self.query(x) @ self.key(x).transpose(-1, -2) / math.sqrt(self.width)
        agents = states.shape[1]
        others = ~torch.eye(agents, dtype=torch.bool, device=states.device)
        heard = others & (alive[:, None, :] > 0)
        weights = torch.softmax(scores.masked_fill(~heard, -1e9), -1) * heard
        out: Tensor = weights @ self.value(x)
        return out

"""The latents of the first Dreamer (arXiv:1912.01603): diagonal Gaussians in place of categoricals."""

from __future__ import annotations

import math

import torch
from oneiros.algorithms.dreamerv3.rssm import RSSM
from oneiros.algorithms.nn.layers import MLP, Linear
from torch import Tensor
from torch.nn import functional as F

LEAST_STD = 0.1


class GaussianRSSM(RSSM):
    """An ``RSSM`` whose stochastic state ``(N, S)`` is drawn from ``Normal(mean, softplus(raw) + 0.1)``.

    What the base class calls logits are ``[mean, raw]``, ``(N, 2 * S)``; a distribution is mean and deviation,
    ``(N, 2, S)``. Noise is uniform as there, and becomes normal by the inverse of the distribution function.
    """

    stored = torch.float16

    def __init__(self, deter: int, hidden: int, size: int, tokens: int, action: int, prior_layers: int = 2):
        super().__init__(deter, hidden, size, 1, tokens, action, prior_layers)
        self.post_logits = Linear(hidden, 2 * size)
        self.prior_net = MLP(deter, prior_layers, hidden, 2 * size)

    def distribution(self, logits: Tensor) -> Tensor:
        """Mean and deviation ``(N, 2, S)``, float32."""
        mean, raw = logits.float().view(-1, 2, self.stoch).unbind(1)
        return torch.stack([mean, F.softplus(raw) + LEAST_STD], 1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """``KL(p || q)``, summed over dimensions: ``(N,)``."""
        (mean, std), (other, width) = p.unbind(1), q.unbind(1)
        ratio = (std / width).square()
        return 0.5 * (ratio + ((mean - other) / width).square() - 1 - ratio.log()).sum(-1)

    def entropy(self, p: Tensor) -> Tensor:
        """Differential entropy in nats: ``(N,)``."""
        return (p[:, 1].log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Sample ``(N, S)`` with noise ``(N, S)``; the gradient is that of ``mean + std * noise``."""
        mean, std = self.distribution(logits).unbind(1)
        # Single precision counts 2^-24 as the distance of a uniform number from 0 and from 1.
        noise = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + 2**-23, 1 - 2**-23))
        return (mean + std * noise).to(logits.dtype)

    def pack(self, stoch: Tensor) -> Tensor:
        """Half precision ``(..., S)``, as replay stores them."""
        return stoch.to(torch.float16)

    def unpack(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of ``pack``."""
        return index.to(dtype)

"""Lambda-returns, imagined and replayed, and the normaliser of advantages."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(
    reward: Tensor, last: Tensor, terminal: Tensor, bootstrap: Tensor, discount: float, lam: float
) -> Tensor:
    """Lambda-returns (Sutton and Barto, eq. 12.2) over time-major sequences.

    ``R_t = r_{t+1} + live_{t+1} ((1 - cont_{t+1}) v_{t+1} + cont_{t+1} R_{t+1})``, from ``R_T = v_T``, with
    ``live = (1 - terminal) discount`` and ``cont = (1 - last) lam``.

    Args:
        reward: ``(T + 1, N)``; entry ``t`` is paid on arriving at step ``t``, so entry 0 is not used.
        last: ``(T + 1, N)``, 1 where the sequence breaks off after the step: nothing beyond is looked at.
        terminal: ``(T + 1, N)``, 1 (or a probability) where nothing follows; 0 at a truncation.
        bootstrap: ``(T + 1, N)``, what a state is worth when the recursion stops there.
        discount, lam: per step.

    Returns:
        ``(T, N)``, the returns of steps ``0 .. T - 1``.
    """
    assert reward.shape == last.shape == terminal.shape == bootstrap.shape
    live = (1 - terminal[1:]) * discount
    cont = (1 - last[1:]) * lam
    fixed = reward[1:] + live * (1 - cont) * bootstrap[1:]
    carry = live * cont
    returns = [bootstrap[-1]]
    for t in reversed(range(fixed.shape[0])):
        returns.append(fixed[t] + carry[t] * returns[-1])
    return torch.stack(returns[:0:-1])


class ReturnScale(torch.nn.Module):
    """``max(1, P95 - P5)`` of the returns; percentiles are exponential averages from zero, not debiased.

    Large returns are scaled down, small ones are left alone, so sparse rewards are not amplified (DreamerV3, eq. 7).
    """

    low: Tensor
    high: Tensor
    ranks: Tensor

    def __init__(self, rate: float = 0.01, limit: float = 1.0):
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("ranks", torch.tensor([0.05, 0.95]), persistent=False)

    @torch.no_grad()
    def update(self, returns: Tensor) -> Tensor:
        """Take in ``returns`` of any shape and return the new scale ``()``."""
        percentiles = torch.quantile(returns.float().flatten(), self.ranks)
        # A NaN among the returns costs this update, which the optimiser skips, and none after it.
        percentiles = torch.where(torch.isfinite(percentiles), percentiles, torch.stack([self.low, self.high]))
        self.low.lerp_(percentiles[0], self.rate)
        self.high.lerp_(percentiles[1], self.rate)
        return self.scale()

    def scale(self) -> Tensor:
        """The current scale ``()``."""
        return (self.high - self.low).clamp(min=self.limit)

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
    if reward.device.type != "cpu":
        return _doubled(fixed, carry, bootstrap[-1])
    returns = [bootstrap[-1]]
    for t in reversed(range(fixed.shape[0])):
        returns.append(fixed[t] + carry[t] * returns[-1])
    return torch.stack(returns[:0:-1])


def _doubled(fixed: Tensor, carry: Tensor, last: Tensor) -> Tensor:
    """``R_t = fixed_t + carry_t R_{t+1}`` ``(T, N)`` from ``R_T = last`` ``(N,)``, twice as far at every turn.

    More arithmetic than one step after the other, but four launches a turn and some six turns in place of two a step.
    """
    total = torch.cat([fixed, last[None]])
    factor = torch.cat([carry, torch.zeros_like(last)[None]])
    ahead = 1
    while ahead < total.shape[0]:
        total = torch.cat([torch.addcmul(total[:-ahead], factor[:-ahead], total[ahead:]), total[-ahead:]])
        factor = torch.cat([factor[:-ahead] * factor[ahead:], factor[-ahead:]])
        ahead *= 2
    return total[:-1]


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
    def update(self, returns: Tensor, counted: Tensor | None = None) -> Tensor:
        """Take in ``returns`` of any shape, those alone that are ``counted`` (above 0); return the new scale ``()``."""
        if counted is None:
            percentiles = torch.quantile(returns.float().flatten(), self.ranks)
        else:
            percentiles = self._percentiles(returns.float().flatten(), counted.flatten() > 0)
        # A NaN among the returns costs this update, which the optimiser skips, and none after it.
        percentiles = torch.where(torch.isfinite(percentiles), percentiles, torch.stack([self.low, self.high]))
        self.low.lerp_(percentiles[0], self.rate)
        self.high.lerp_(percentiles[1], self.rate)
        return self.scale()

    def _percentiles(self, returns: Tensor, counted: Tensor) -> Tensor:
        """``torch.quantile`` of the returns that are counted, not finite without any; nothing waits for how many."""
        ascending = torch.where(counted, returns, torch.inf).sort().values
        place = self.ranks * (counted.sum() - 1).clamp(min=0)
        low, high = ascending[place.floor().long()], ascending[place.ceil().long()]
        between = torch.lerp(low, high, place - place.floor())
        # A NaN, which is sorted to the end, makes them NaN.
        return torch.where(ascending[-1].isnan(), ascending[-1], between)

    def scale(self) -> Tensor:
        """The current scale ``()``."""
        return (self.high - self.low).clamp(min=self.limit)

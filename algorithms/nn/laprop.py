"""LaProp with adaptive gradient clipping: the one optimiser of DreamerV3, over flat buffers.

The order is the paper's: clip each tensor's gradient to 0.3 of its parameter's norm (AGC, Brock et al. 2021), divide by
the running root mean square, then accumulate momentum (LaProp, Ziyin et al. 2020); both moments are debiased.
One deviation: the recurrent model's hidden layer and the posterior's are two tensors each, the part that reads deter
and the part that reads all else, where the paper has one; each part is clipped by its own norms.
A gradient that is not finite changes nothing, moments and step count included, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor


class LaProp:
    """Takes steps on ``weights`` without waiting for the device.

    Args:
        weights: the parameters and their gradient buffer.
        learning_rate: after warm-up.
        warmup: updates over which the learning rate rises linearly from 0; the first update has rate 0.
        anneal: updates, warm-up included, after which the rate has fallen linearly to a tenth; 0 keeps it.
        clip: AGC's bound on the ratio of gradient norm to parameter norm; 0 turns clipping off.
        min_norm: parameter norms below this count as this.
    """

    def __init__(
        self,
        weights: Weights,
        learning_rate: float = 4e-5,
        warmup: int = 1000,
        anneal: int = 0,
        clip: float = 0.3,
        min_norm: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-20,
    ):
        self.weights = weights
        self.learning_rate, self.warmup, self.anneal = learning_rate, warmup, anneal
        self.clip, self.min_norm = clip, min_norm
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        device = weights.flat.device
        self.rms = torch.zeros_like(weights.flat)
        self.momentum = torch.zeros_like(weights.flat)
        self.step_count = torch.zeros((), dtype=torch.float64, device=device)
        self.nonfinite = torch.zeros((), dtype=torch.float64, device=device)
        self._advance: Callable[..., None] = self._advance_in_passes

    def compile(self) -> None:
        """Have one kernel clip, average and move, where each operation would be a pass over a GPU's memory."""
        sizes = torch.tensor([grad.numel() for grad in self.weights.grads])
        assert int(sizes.sum()) == self.weights.grad.numel()
        ends = sizes.cumsum(0).to(self.weights.flat.device)
        fused = torch.compile(advance, dynamic=False, fullgraph=True)

        def advance_in_one(shrink: Tensor, rate1: Tensor, rate2: Tensor, correct2: Tensor, step: Tensor) -> None:
            buffers = self.weights.flat, self.weights.grad, self.rms, self.momentum, ends
            fused(*buffers, shrink, rate1, rate2, correct2, step, self.eps)

        self._advance = advance_in_one

    @torch.no_grad()
    def step(self) -> dict[str, Tensor]:
        """Apply the gradients in ``weights.grad``, zero them, and return norms ``()`` as metrics."""
        grads, params = self.weights.grads, self.weights.params
        grad_norms = torch.stack(torch._foreach_norm(grads))
        grad_norm = grad_norms.square().sum().sqrt()
        finite = torch.isfinite(grad_norm).to(torch.float32)
        if self.clip:
            bound = self.clip * torch.stack(torch._foreach_norm(params)).clamp(min=self.min_norm)
            shrink = 1 / torch.clamp(grad_norms / bound, min=1.0)
        else:
            shrink = torch.ones_like(grad_norms)
        self.nonfinite += 1 - finite
        self.step_count += finite
        rate = self._rate()
        correct1 = (1 - self.beta1**self.step_count).clamp(min=1e-12)
        correct2 = (1 - self.beta2**self.step_count).clamp(min=1e-12)

        rates = (1 - self.beta1) * finite, (1 - self.beta2) * finite
        self._advance(shrink, *rates, correct2.float(), (-rate / correct1 * finite).float())
        return {"grad_norm": grad_norm, "nonfinite": 1 - finite, "learning_rate": rate.float()}

    def _advance_in_passes(self, shrink: Tensor, rate1: Tensor, rate2: Tensor, correct2: Tensor, step: Tensor) -> None:
        """``advance`` as one operation after the other, each in place."""
        grad = self.weights.grad
        if self.clip:
            torch._foreach_mul_(self.weights.grads, list(shrink.unbind()))
        torch.where(rate2 > 0, grad, torch.zeros((), device=grad.device), out=grad)
        self.rms.lerp_(grad.square(), rate2)
        scale = self.rms.div(correct2).sqrt_().add_(self.eps)
        self.momentum.lerp_(grad.div_(scale), rate1)
        self.weights.flat.addcmul_(self.momentum, step)
        grad.zero_()

    def _rate(self) -> Tensor:
        done = self.step_count - 1
        rate = torch.full_like(done, self.learning_rate)
        if self.warmup:
            rate = rate * (done / self.warmup).clamp(0, 1)
        if self.anneal:
            rate = rate * (1 - 0.9 * ((done - self.warmup) / (self.anneal - self.warmup)).clamp(0, 1))
        return rate

    def state_dict(self) -> dict[str, Tensor]:
        """Moments, step count and the count of skipped updates."""
        return {
            "rms": self.rms,
            "momentum": self.momentum,
            "step": self.step_count,
            "nonfinite": self.nonfinite,
        }


def advance(
    flat: Tensor,
    grad: Tensor,
    rms: Tensor,
    momentum: Tensor,
    ends: Tensor,
    shrink: Tensor,
    rate1: Tensor,
    rate2: Tensor,
    correct2: Tensor,
    step: Tensor,
    eps: float,
) -> None:
    """What ``LaProp.step`` does to the flat buffers ``(P,)``, in place, as one expression of each number in them.

    Tensor ``i`` of those that end at ``ends`` has its gradient multiplied by ``shrink[i]``. The averages move by
    ``rate1`` and ``rate2``, the parameters by ``step`` times the momentum; a rate of 0 skips a gradient that is not
    finite.
    """
    tensor = torch.bucketize(torch.arange(grad.shape[0], device=grad.device), ends, right=True)
    clipped = torch.where(rate2 > 0, grad * shrink[tensor], 0.0)
    square = rms + rate2 * (clipped.square() - rms)
    moved = momentum + rate1 * (clipped / ((square / correct2).sqrt() + eps) - momentum)
    rms.copy_(square)
    momentum.copy_(moved)
    flat.add_(moved * step)
    grad.zero_()

"""Distributions as functions of logits, written so that no sample or loss waits for the device.

Noise is an argument: whoever samples draws it for all steps at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def symlog(x: Tensor) -> Tensor:
    """``sign(x) ln(1 + |x|)`` (DreamerV3, eq. 1)."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """The inverse of ``symlog``."""
    return torch.sign(x) * torch.expm1(x.abs())


# ---- categorical latents ---------------------------------------------------------------------------------------------
# A latent of ``groups`` categoricals over ``classes`` is laid out class-major, ``(N, classes, groups)``: a softmax over
# the middle axis then runs over long contiguous rows, which is many times faster than over a last axis of 4.


def latent_probs(logits: Tensor, unimix: float) -> Tensor:
    """Probabilities ``(N, classes, groups)`` in float32, mixed with ``unimix`` of the uniform distribution."""
    probs = torch.softmax(logits.float(), 1)
    return (1 - unimix) * probs + unimix / logits.shape[1]


UNROLLED = 8
"""Up to so many classes, compiled code adds probabilities up class by class, in one pass with all around it."""


def one_hot_sample(probs: Tensor, uniform: Tensor) -> Tensor:
    """Sample one class per group: the first whose cumulative probability exceeds ``uniform`` ``(N, groups)``.

    Returns one-hot ``(N, classes, groups)`` in the dtype of ``probs``; no gradient.
    """
    probs, classes = probs.detach(), probs.shape[1]
    # The last class is what no other is: the sum of all can round to just under 1.
    if torch.compiler.is_compiling() and classes <= UNROLLED:
        below, index = probs[:, 0], torch.zeros_like(uniform)
        for k in range(1, classes):
            index = index + (below <= uniform).to(index.dtype)
            below = below + probs[:, k]
        index = index[:, None]
    else:
        index = (probs.cumsum(1)[:, :-1] <= uniform[:, None]).sum(1, keepdim=True)
    return (torch.arange(classes, device=probs.device)[:, None] == index).to(probs.dtype)


def straight_through(sample: Tensor, probs: Tensor) -> Tensor:
    """The value of ``sample`` with the gradient of ``probs``."""
    return sample + (probs - probs.detach())


def categorical_kl(p: Tensor, q: Tensor) -> Tensor:
    """``KL(p || q)`` of probabilities ``(N, classes, groups)``, summed over groups: ``(N,)``."""
    return (p * (_safe_log(p) - _safe_log(q))).sum((1, 2))


def categorical_entropy(p: Tensor) -> Tensor:
    """Entropy in nats of probabilities ``(N, classes, groups)``, summed over groups: ``(N,)``."""
    return -(p * _safe_log(p)).sum((1, 2))


def _safe_log(p: Tensor) -> Tensor:
    """Without a share of uniform, probabilities can round to zero."""
    return p.clamp(min=1e-20).log()


# ---- two-hot scalars -------------------------------------------------------------------------------------------------


# Logits of the negative bins are stored outward from zero, as those of the positive bins are: a bin and its mirror
# image then lie at the same offset of two contiguous halves, and pairing them needs no reversed copy.


CPU_ROWS = 2048
"""Rows of bins that fit into a CPU's caches."""


@functools.lru_cache
def twohot_bins(count: int, device: torch.device) -> Tensor:
    """The bins ``symexp(linspace(-20, 20))`` in ascending order, exactly symmetric around an exact zero."""
    assert count % 2 == 1, count
    half = symexp(torch.linspace(-20, 0, count // 2 + 1, dtype=torch.float32))
    return torch.cat([half, -half[:-1].flip(0)]).to(device)


def twohot_mean(logits: Tensor, bins: Tensor) -> Tensor:
    """The expectation ``(N,)`` of ``(N, bins)`` logits; exactly 0 for uniform logits.

    Bins of opposite sign are paired: ``p_j b_j + p_i b_i = (p_j - p_i) b_j``. One product, so that no fused
    multiply-add can keep the two from cancelling.
    """
    middle = bins.shape[0] // 2
    probs = torch.softmax(logits.float(), -1)
    return ((probs[..., middle + 1 :] - probs[..., :middle]) * bins[middle + 1 :]).sum(-1)


def twohot_smooth_mean(logits: Tensor) -> Tensor:
    """``symexp`` of the mean position ``(N,)`` among the bins of ``(N, bins)`` logits.

    Close to ``twohot_mean`` where the mass lies on neighbours, and of use where gradients flow to what the logits were
    made of: there the outermost bins, at ``exp(20)``, drown all others however little mass they have.
    """
    middle = logits.shape[-1] // 2
    far = torch.linspace(0, 20, middle + 1, dtype=torch.float32, device=logits.device)[1:]
    probs = torch.softmax(logits.float(), -1)
    return symexp(((probs[..., middle + 1 :] - probs[..., :middle]) * far).sum(-1))


def twohot_encode(target: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Where the two-hot encoding of ``target`` ``(N,)`` is not zero: stored indices and weights, each ``(N, 2)``."""
    middle = bins.shape[0] // 2
    above = torch.searchsorted(bins, target.contiguous(), right=True).clamp(1, bins.shape[0] - 1)
    index = torch.stack([above - 1, above], -1)
    low, high = bins[index].unbind(-1)
    weight = ((target - low) / (high - low)).clamp(0, 1)
    return torch.where(index < middle, middle - 1 - index, index), torch.stack([1 - weight, weight], -1)


def twohot_loss(logits: Tensor, target: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy ``(N,)`` of ``(N, bins)`` logits with the two-hot encoding of ``target`` ``(N,)``, in nats."""
    logits = logits.float()
    index, weight = twohot_encode(target, bins)
    return torch.logsumexp(logits, -1) - (weight * logits.gather(-1, index)).sum(-1)


class _TwoHotLosses(torch.autograd.Function):
    """One softmax and one scatter for all targets, where autograd would fill a zero tensor for each.

    Rows are taken some at a time: logits of a lower dtype are then never all there in float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, weight: Tensor, total: float, rows: int) -> Tensor:
        norm = torch.cat([torch.logsumexp(part.float(), -1) for part in logits.split(rows)])
        ctx.save_for_backward(logits, norm, index, weight)
        ctx.total, ctx.rows = total, rows
        return total * norm - (weight * logits.gather(-1, index).float()).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, norm, index, weight = ctx.saved_tensors
        out, at = torch.empty_like(logits), -weight * grad[:, None]
        scale = (grad * ctx.total)[:, None]
        parts = (x.split(ctx.rows) for x in (out, logits, norm[:, None], scale, index, at))
        for to, part, part_norm, part_scale, part_index, part_at in zip(*parts, strict=True):
            probs = torch.exp(part.float() - part_norm).mul_(part_scale)
            to.copy_(probs.scatter_add_(-1, part_index, part_at))
        return out, None, None, None, None


def twohot_losses(logits: Tensor, targets: Sequence[Tensor], scales: Sequence[float], bins: Tensor) -> Tensor:
    """The sum of ``twohot_loss`` ``(N,)`` over several targets ``(N,)``, each weighed by its scale."""
    encoded = [twohot_encode(target, bins) for target in targets]
    index = torch.cat([index for index, _ in encoded], -1)
    weight = torch.cat([scale * weight for scale, (_, weight) in zip(scales, encoded, strict=True)], -1)
    rows = CPU_ROWS if logits.device.type == "cpu" else max(1, logits.shape[0])
    out: Tensor = _TwoHotLosses.apply(logits, index, weight, sum(scales), rows)  # type: ignore[no-untyped-call]
    return out


# ---- discrete actions ------------------------------------------------------------------------------------------------


MASKED = -1e9
"""The logit of what is not legal."""


def legal_classes(logits: Tensor) -> Tensor:
    """Which of the classes ``(..., n)`` are legal, 0 or 1, by the logits of each being so.

    At least the likeliest one is, or there would be nothing to sample.
    """
    best = F.one_hot(logits.argmax(-1), logits.shape[-1])
    return torch.maximum((logits > 0).float(), best.float())


def class_probs(logits: Tensor, legal: Tensor | None, unimix: float) -> Tensor:
    """Probabilities ``(..., n)``, mixed with ``unimix`` of the uniform distribution over what is legal.

    ``legal`` ``(..., n)`` is 1 where a class may be drawn, else 0; None allows all.
    """
    if legal is None:
        uniform = torch.full_like(logits, 1 / logits.shape[-1])
    else:
        logits = torch.where(legal > 0, logits, MASKED)
        uniform = legal / legal.sum(-1, keepdim=True).clamp(min=1)
    return (1 - unimix) * torch.softmax(logits, -1) + unimix * uniform


def class_sample(probs: Tensor, uniform: Tensor) -> Tensor:
    """Sample one class of ``(..., n)`` probabilities with noise ``(...)``, never one of probability 0.

    Returns a one-hot in the dtype of ``probs``; no gradient.
    """
    cumulative = probs.detach().cumsum(-1)
    # Of the sum of all, which can round to just under 1: noise below 1 always is below it then.
    index = (cumulative <= uniform[..., None] * cumulative[..., -1:]).sum(-1, keepdim=True)
    return (torch.arange(probs.shape[-1], device=probs.device) == index).to(probs.dtype)


# ---- continuous actions ----------------------------------------------------------------------------------------------

MIN_STD, MAX_STD = 0.1, 1.0
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def bounded_normal(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """``Normal(tanh(mean), 0.9 sigmoid(std + 2) + 0.1)`` as its mean and deviation."""
    return torch.tanh(mean.float()), (MAX_STD - MIN_STD) * torch.sigmoid(std.float() + 2.0) + MIN_STD


def normal_log_prob(mean: Tensor, std: Tensor, value: Tensor) -> Tensor:
    """Log density of ``value``, elementwise."""
    return -0.5 * ((value - mean) / std).square() - std.log() - LOG_SQRT_2PI


def normal_entropy(std: Tensor) -> Tensor:
    """Differential entropy in nats, elementwise."""
    return std.log() + 0.5 + LOG_SQRT_2PI

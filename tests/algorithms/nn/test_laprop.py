"""LaProp with adaptive gradient clipping against a plain loop over parameters, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oneiros.algorithms.nn import laprop
from oneiros.algorithms.nn.laprop import LaProp
from oneiros.algorithms.nn.weights import Weights
from torch import nn

SHAPES = [(7, 5), (5,), (3, 2, 4), (4,), (6, 6)]
LARGE, BIAS, SMALL, TINY, UNCLIPPED = range(5)


class Plain:
    """The paper's optimiser, one parameter at a time: clip by norms, divide by RMS, then average (LaProp)."""

    def __init__(self, params: list[np.ndarray], rate: float, warmup: int, clip: float) -> None:
        self.params = [p.astype(np.float64) for p in params]
        self.rate, self.warmup, self.clip = rate, warmup, clip
        self.squares = [np.zeros_like(p) for p in self.params]
        self.momenta = [np.zeros_like(p) for p in self.params]
        self.steps = 0

    def step(self, grads: list[np.ndarray]) -> None:
        rate = self.rate * min(1.0, self.steps / self.warmup) if self.warmup else self.rate
        self.steps += 1
        for i, grad in enumerate(g.astype(np.float64) for g in grads):
            limit = self.clip * max(1e-3, np.linalg.norm(self.params[i]))
            norm = np.linalg.norm(grad)
            if self.clip and norm > limit:
                grad = grad * limit / norm
            self.squares[i] = 0.999 * self.squares[i] + 0.001 * grad**2
            grad = grad / (np.sqrt(self.squares[i] / (1 - 0.999**self.steps)) + 1e-20)
            self.momenta[i] = 0.9 * self.momenta[i] + 0.1 * grad
            self.params[i] = self.params[i] - rate * self.momenta[i] / (1 - 0.9**self.steps)


def make(seed: int = 0, **options: float) -> tuple[nn.Module, Weights, LaProp]:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(s, generator=generator) for s in SHAPES]
    values[BIAS].zero_()
    values[TINY].mul_(1e-5)
    module = nn.ParameterList([nn.Parameter(v) for v in values])
    weights = Weights([module], torch.float32)
    return module, weights, LaProp(weights, **options)  # type: ignore[arg-type]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    grads = [torch.randn(s, generator=generator) * 10.0 ** (step % 3 - 1) for s in SHAPES]
    grads[UNCLIPPED] *= 1e-3
    grads[SMALL][0] = 0.0
    return grads


def take(weights: Weights, optimiser: LaProp, grads: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    for view, grad in zip(weights.grads, grads, strict=True):
        view.copy_(grad)
    return optimiser.step()


@pytest.mark.parametrize(("warmup", "clip"), [(5, 0.3), (0, 0.3), (3, 0.0)])
def test_equals_a_plain_loop_over_parameters(warmup: int, clip: float) -> None:
    _, weights, optimiser = make(learning_rate=1e-2, warmup=warmup, clip=clip)
    plain = Plain([p.detach().numpy() for p in weights.params], 1e-2, warmup, clip)
    for step in range(12):
        grads = gradients(step)
        metrics = take(weights, optimiser, grads)
        plain.step([g.numpy() for g in grads])
        for ours, expected in zip(weights.params, plain.params, strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=2e-4, atol=2e-6)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
        assert metrics["grad_norm"].item() == pytest.approx(norm, rel=1e-5)


def test_warms_up_linearly_from_zero() -> None:
    _, weights, optimiser = make(learning_rate=1e-2, warmup=4)
    before = weights.flat.clone()
    rates = []
    for step in range(7):
        rates.append(take(weights, optimiser, gradients(step))["learning_rate"].item())
        assert torch.equal(weights.flat, before) == (step == 0), "only the first update has rate 0"
    assert rates == pytest.approx([0, 0.25e-2, 0.5e-2, 0.75e-2, 1e-2, 1e-2, 1e-2])


def test_anneals_linearly_to_a_tenth_and_stays_there() -> None:
    _, weights, optimiser = make(learning_rate=1e-2, warmup=2, anneal=6)
    rates = [take(weights, optimiser, gradients(step))["learning_rate"].item() for step in range(9)]
    assert rates == pytest.approx([0, 0.5e-2, 1e-2, 0.775e-2, 0.55e-2, 0.325e-2, 0.1e-2, 0.1e-2, 0.1e-2])


def test_a_gradient_is_clipped_to_its_share_of_the_parameter_norm() -> None:
    # After one step the debiased RMS is the clipped gradient itself: it tells what was let through.
    _, weights, optimiser = make(learning_rate=1e-3, warmup=0)
    norms = [p.norm().item() for p in weights.params]
    grads = gradients(1)
    take(weights, optimiser, grads)
    through = optimiser.rms.div(1e-3).sqrt().split(weights.sizes)
    assert through[LARGE].norm().item() == pytest.approx(0.3 * norms[LARGE], rel=1e-3)
    assert through[BIAS].norm().item() == pytest.approx(0.3 * 1e-3, rel=1e-3), "zero parameters count as 1e-3"
    assert norms[TINY] < 1e-3
    assert through[TINY].norm().item() == pytest.approx(0.3 * 1e-3, rel=1e-3), "tiny parameters count as 1e-3"
    assert through[UNCLIPPED].norm().item() == pytest.approx(grads[UNCLIPPED].norm().item(), rel=1e-3)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 3])
def test_a_gradient_that_is_not_finite_changes_nothing_but_the_counter(poison: float, at: int) -> None:
    _, weights, optimiser = make(learning_rate=1e-2, warmup=2)
    _, other_weights, other = make(learning_rate=1e-2, warmup=2)
    for step in range(at):
        take(weights, optimiser, gradients(step))
        take(other_weights, other, gradients(step))
    before = {k: v.clone() for k, v in optimiser.state_dict().items()} | {"flat": weights.flat.clone()}
    bad = gradients(99)
    bad[SMALL].view(-1)[5] = poison
    metrics = take(weights, optimiser, bad)
    after = optimiser.state_dict() | {"flat": weights.flat}
    for name in ("rms", "momentum", "step", "flat"):
        assert torch.equal(after[name], before[name]), name
    assert after["nonfinite"].item() == before["nonfinite"].item() + 1
    assert metrics["nonfinite"].item() == 1
    assert torch.equal(weights.grad, torch.zeros_like(weights.grad)), "the poison must not stay in the gradient buffer"
    for step in range(at, at + 4):
        take(weights, optimiser, gradients(step))
        take(other_weights, other, gradients(step))
    assert torch.equal(weights.flat, other_weights.flat), "as if the poisoned update had never been"


def test_gradients_are_zeroed_for_the_next_update() -> None:
    _, weights, optimiser = make()
    take(weights, optimiser, gradients(0))
    assert torch.equal(weights.grad, torch.zeros_like(weights.grad))


@pytest.mark.parametrize("clip", [0.3, 0.0])
def test_all_passes_in_one_take_the_same_steps(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where they are compiled; a gradient that is not finite is among them."""
    monkeypatch.setattr(laprop.torch, "compile", lambda fn, **_: fn)
    (_, weights, optimiser), (_, fused_weights, fused) = (
        make(learning_rate=1e-2, warmup=4, clip=clip) for _ in range(2)
    )
    fused.compile()
    for step in range(8):
        grads = gradients(step)
        if step == 5:
            grads[LARGE][0, 0] = math.nan
        expected, found = take(weights, optimiser, grads), take(fused_weights, fused, grads)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, equal_nan=True)
    torch.testing.assert_close(fused_weights.flat, weights.flat, rtol=1e-5, atol=1e-6)
    for name, value in optimiser.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert fused.nonfinite.item() == 1
    assert torch.equal(fused_weights.grad, torch.zeros_like(fused_weights.grad))

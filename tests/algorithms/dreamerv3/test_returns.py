"""Lambda-returns against their definition and closed forms, and the normaliser of advantages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oneiros.algorithms.dreamerv3 import returns
from oneiros.algorithms.dreamerv3.returns import ReturnScale, lambda_return

GAMMA, LAM = 1 - 1 / 333, 0.95


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def by_n_step_returns(
    reward: np.ndarray, terminal: np.ndarray, value: np.ndarray, discount: float, lam: float
) -> np.ndarray:
    """Sutton and Barto's definition for one unbroken sequence: the mixture of all n-step returns (eq. 12.3)."""
    horizon = len(reward) - 1
    live = (1 - terminal) * discount
    returns = np.zeros(horizon)
    for t in range(horizon):
        n_step = []
        for n in range(1, horizon - t + 1):
            paid = sum(reward[t + k] * np.prod(live[t + 1 : t + k]) for k in range(1, n + 1))
            n_step.append(paid + np.prod(live[t + 1 : t + n + 1]) * value[t + n])
        weights = [(1 - lam) * lam ** (n - 1) for n in range(1, horizon - t)] + [lam ** (horizon - t - 1)]
        assert sum(weights) == pytest.approx(1)
        returns[t] = np.dot(weights, n_step)
    return returns


@pytest.mark.parametrize(("discount", "lam"), [(1.0, 0.95), (GAMMA, 0.95), (0.9, 0.0), (0.9, 1.0), (0.5, 0.3)])
def test_equals_the_mixture_of_n_step_returns(discount: float, lam: float) -> None:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 9, 4))
    terminal = rng.uniform(0, 0.3, (9, 4))  # a probability, as in imagination
    ours = lambda_return(*map(torch.tensor, (reward, np.zeros_like(reward), terminal, value)), discount, lam)
    assert ours.shape == (8, 4)
    expected = np.stack(
        [by_n_step_returns(reward[:, i], terminal[:, i], value[:, i], discount, lam) for i in range(4)], 1
    )
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def test_constant_reward_and_its_own_value_are_a_fixed_point() -> None:
    value = 1 / (1 - GAMMA)
    ones, zeros = torch.ones(20, 1, dtype=torch.float64), torch.zeros(20, 1, dtype=torch.float64)
    replayed = lambda_return(ones, zeros, zeros, ones * value, GAMMA, LAM)
    torch.testing.assert_close(replayed, ones[:-1] * value)
    # In imagination the predicted continuation carries the discount.
    imagined = lambda_return(ones, zeros, ones * (1 - GAMMA), ones * value, 1.0, LAM)
    torch.testing.assert_close(imagined, ones[:-1] * value)


def test_constant_reward_without_values_is_a_geometric_series() -> None:
    ones, zeros = torch.ones(6, 1, dtype=torch.float64), torch.zeros(6, 1, dtype=torch.float64)
    returns = lambda_return(ones, zeros, zeros, zeros, GAMMA, 1.0)
    expected = [sum(GAMMA**k for k in range(n)) for n in (5, 4, 3, 2, 1)]
    np.testing.assert_allclose(returns[:, 0].numpy(), expected)


def test_the_first_reward_is_never_used_and_the_last_value_always() -> None:
    reward, value, zeros = column(1e9, 1, 2), column(1e9, 0, 10), column(0, 0, 0)
    returns = lambda_return(reward, zeros, zeros, value, 0.5, 1.0)
    torch.testing.assert_close(returns, column(1 + 0.5 * (2 + 0.5 * 10), 2 + 0.5 * 10))


def test_reward_and_value_belong_to_the_step_arrived_at() -> None:
    """One unit of reward or value at step 2 of 4 is seen by steps 0 and 1 alone, discounted for the steps between."""
    zeros, one = column(0, 0, 0, 0, 0), column(0, 0, 1, 0, 0)
    d, lam = 0.5, 0.8
    torch.testing.assert_close(lambda_return(one, zeros, zeros, zeros, d, lam), column(d * lam, 1, 0, 0))
    expected = column(d * lam * d * (1 - lam), d * (1 - lam), 0, 0)
    torch.testing.assert_close(lambda_return(zeros, zeros, zeros, one, d, lam), expected)


def test_nothing_flows_back_over_a_terminal_step() -> None:
    zeros, value = column(0, 0, 0, 0, 0), column(7, 7, 7, 7, 7)
    terminal = column(0, 0, 1, 0, 0)
    reward = column(0, 0, 3, 100, 100)
    returns = lambda_return(reward, terminal, terminal, value, 0.5, 1.0)
    # Arriving at the terminal step pays 3 and nothing after; the step before discounts that once.
    torch.testing.assert_close(returns[:2], column(0.5 * 3, 3))
    assert (returns[2:] > 50).all()
    del zeros


def test_a_truncation_bootstraps_from_its_own_value() -> None:
    zeros, value = column(0, 0, 0, 0, 0), column(0, 0, 7, 1000, 1000)
    last = column(0, 0, 1, 0, 0)
    reward = column(0, 0, 3, 100, 100)
    returns = lambda_return(reward, last, zeros, value, 0.5, 1.0)
    torch.testing.assert_close(returns[:2], column(0.5 * (3 + 0.5 * 7), 3 + 0.5 * 7))


def test_last_without_terminal_is_not_terminal() -> None:
    value, reward, zeros = column(5, 5, 5), column(0, 1, 1), column(0, 0, 0)
    for last, terminal in itertools.product((zeros, column(0, 1, 0)), repeat=2):
        returns = lambda_return(reward, last, terminal, value, 0.9, 0.95)
        follow = 1 + 0.9 * 5
        beyond = 5 if last[1] else 0.05 * 5 + 0.95 * follow
        assert returns[0].item() == pytest.approx(1 if terminal[1] else 1 + 0.9 * beyond)


# ---- normaliser ------------------------------------------------------------------------------------------------------


def test_percentiles_average_from_zero_without_debiasing() -> None:
    scale = ReturnScale(rate=0.01)
    low = high = 0.0
    rng = np.random.default_rng(0)
    for _ in range(30):
        returns = rng.normal(50, 40, (5, 60)).astype(np.float32)
        low = 0.99 * low + 0.01 * np.percentile(returns, 5)
        high = 0.99 * high + 0.01 * np.percentile(returns, 95)
        found = scale.update(torch.tensor(returns))
        assert found.item() == pytest.approx(max(1.0, high - low), rel=1e-4)
    assert scale.low.item() == pytest.approx(low, rel=1e-4)
    assert scale.high.item() == pytest.approx(high, rel=1e-4)
    assert found.item() > 5, "the test must leave the floor"


def test_small_returns_are_not_amplified() -> None:
    scale = ReturnScale(rate=0.5)
    for _ in range(50):
        assert scale.update(torch.linspace(-0.3, 0.3, 100)).item() == 1.0


def test_the_first_update_already_moves_the_percentiles() -> None:
    scale = ReturnScale(rate=0.01)
    assert scale.update(torch.linspace(0, 1000, 1001)).item() == pytest.approx(9.0, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 15, 63])
def test_twice_as_far_at_every_turn_is_one_step_after_the_other(steps: int) -> None:
    """As on a GPU; with ends, and gradients as the actor takes them through the dynamics."""
    generator = torch.Generator().manual_seed(steps)
    fixed, carry = torch.randn(steps, 4, generator=generator), torch.rand(steps, 4, generator=generator)
    carry[torch.rand(steps, 4, generator=generator) < 0.2] = 0
    last = torch.randn(4, generator=generator)
    plain, doubled = ([x.clone().requires_grad_() for x in (fixed, carry, last)] for _ in range(2))
    after, expected = plain[2], []
    for t in reversed(range(steps)):
        after = plain[0][t] + plain[1][t] * after
        expected.insert(0, after)
    found = returns._doubled(*doubled)
    torch.testing.assert_close(found, torch.stack(expected))
    found.square().sum().backward()
    torch.stack(expected).square().sum().backward()
    for one, other in zip(doubled, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_percentiles_are_of_those_that_are_counted() -> None:
    generator = torch.Generator().manual_seed(0)
    returns, there = torch.randn(5, 31, generator=generator) * 9, torch.rand(5, 31, generator=generator) < 0.4
    some, plain = ReturnScale(rate=0.5), ReturnScale(rate=0.5)
    assert some.update(returns, there.float()) == plain.update(returns[there])
    assert (some.low, some.high) == (plain.low, plain.high)
    for nothing in (torch.zeros(5, 31), there.float()):
        poisoned = returns if nothing.sum() == 0 else returns.masked_fill(there, torch.nan)
        assert some.update(poisoned, nothing) == plain.scale()
    one = torch.zeros(5, 31)
    one[2, 3] = 1
    some.update(returns, one)
    assert some.low == pytest.approx((plain.low + returns[2, 3]).item() / 2)

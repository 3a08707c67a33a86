"""Two-hot scalars, categorical latents and bounded normals against closed forms and independent implementations."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oneiros.algorithms.nn.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_kl,
    class_probs,
    class_sample,
    latent_probs,
    normal_entropy,
    normal_log_prob,
    one_hot_sample,
    straight_through,
    symexp,
    symlog,
    twohot_bins,
    twohot_encode,
    twohot_loss,
    twohot_losses,
    twohot_mean,
    twohot_smooth_mean,
)
from oneiros.algorithms.nn.layers import MLP
from scipy import stats

CPU = torch.device("cpu")
JUST_UNDER_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def bins_in_numpy() -> np.ndarray:
    """The reference: ``symexp(linspace(-20, 0, 128))`` and its mirror image, in float64."""
    half = -np.expm1(-np.linspace(-20, 0, 128))
    return np.concatenate([half, -half[:-1][::-1]])


def two_hot_in_numpy(target: float, bins: np.ndarray) -> np.ndarray:
    """The two bins around the target share the mass in inverse proportion to their distance."""
    encoding = np.zeros(len(bins))
    if target <= bins[0]:
        encoding[0] = 1
    elif target >= bins[-1]:
        encoding[-1] = 1
    else:
        above = next(i for i, b in enumerate(bins) if b > target)
        span = bins[above] - bins[above - 1]
        encoding[above] = (target - bins[above - 1]) / span
        encoding[above - 1] = (bins[above] - target) / span
    return encoding


def bin_of_logit() -> np.ndarray:
    """Which bin each logit stands for, read off by being certain of it; every bin must have exactly one logit."""
    bins = twohot_bins(255, CPU)
    means = twohot_mean(torch.full((255, 255), -200.0).fill_diagonal_(200.0), bins)
    index = np.abs(means.numpy()[:, None] - bins.numpy()).argmin(1)
    assert sorted(index) == list(range(255))
    return index


def encodings_of_logits(targets: list[float]) -> np.ndarray:
    """Two-hot encodings ``(N, 255)`` of float32 targets, in the order of the logits."""
    bins = twohot_bins(255, CPU).double().numpy()
    exact = torch.tensor(targets).double().tolist()
    return np.stack([two_hot_in_numpy(t, bins) for t in exact])[:, bin_of_logit()]


# ---- symlog ----------------------------------------------------------------------------------------------------------


def test_symlog_values_and_inverse() -> None:
    x = torch.tensor([-1000.0, -1.0, 0.0, 1e-3, np.e - 1, 1e4])
    torch.testing.assert_close(
        symlog(x), torch.tensor([-np.log(1001), -np.log(2), 0, np.log1p(1e-3), 1, np.log(10001)]).float()
    )
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-5, atol=1e-7)
    assert torch.equal(symlog(-x), -symlog(x))


# ---- two-hot ---------------------------------------------------------------------------------------------------------


def test_bins_are_symexp_of_a_line_mirrored_around_an_exact_zero() -> None:
    bins = twohot_bins(255, CPU)
    np.testing.assert_allclose(bins.numpy(), bins_in_numpy(), rtol=1e-5)
    assert bins.dtype == torch.float32
    assert bins[127] == 0.0
    assert torch.equal(bins, -bins.flip(0))
    assert (bins.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("constant", [0.0, 0.3, -7.0])
def test_mean_of_uniform_logits_is_exactly_zero(dtype: torch.dtype, constant: float) -> None:
    for n in (1, 7, 64, 1000):
        logits = torch.full((n, 255), constant, dtype=dtype)
        mean = twohot_mean(logits, twohot_bins(255, CPU))
        assert mean.dtype == torch.float32
        assert torch.equal(mean, torch.zeros(n)), mean.abs().max()


def test_a_fresh_head_of_scale_zero_predicts_exactly_zero() -> None:
    torch.manual_seed(0)
    head = MLP(20, 3, 16, 255, scale=0.0)
    assert torch.equal(twohot_mean(head(torch.randn(50, 20)), twohot_bins(255, CPU)), torch.zeros(50))


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for torch.compile")
@pytest.mark.parametrize("target", [0.0, 0.3, -7.5, 120.0, -3000.0])
def test_the_smooth_mean_of_a_two_hot_distribution_is_its_target(target: float) -> None:
    bins = twohot_bins(255, CPU)
    index, weight = twohot_encode(torch.tensor([target]), bins)
    logits = torch.full((1, 255), -200.0).scatter_(-1, index, weight.clamp(min=1e-30).log()).requires_grad_()
    mean = twohot_smooth_mean(logits)
    assert mean.item() == pytest.approx(target, rel=0.02, abs=0.02)
    # A bin far away gets a gradient by its position, not by the number that stands there.
    (slope,) = torch.autograd.grad(mean, logits)
    assert slope.abs().max() < 25 * (1 + abs(target))


def test_the_mean_is_exactly_zero_when_compiled_too() -> None:
    bins = twohot_bins(255, CPU)
    head = MLP(20, 1, 16, 255, scale=0.0)

    @torch.compile(dynamic=False, fullgraph=True)
    def predict(x: torch.Tensor) -> torch.Tensor:
        return twohot_mean(head(x), bins)

    assert torch.equal(predict(torch.randn(33, 20)), torch.zeros(33))


@pytest.mark.parametrize("target", [-3e8, -1234.5, -1.0, -1e-3, 0.0, 2e-5, 0.5, 1.0, 17.3, 999.0, 2e6, 4e8])
def test_the_expectation_of_an_encoding_is_what_was_encoded(target: float) -> None:
    encoding = two_hot_in_numpy(target, bins_in_numpy())[bin_of_logit()]
    logits = torch.tensor(np.log(np.maximum(encoding, 1e-38))).float()[None]
    assert twohot_mean(logits, twohot_bins(255, CPU)).item() == pytest.approx(target, rel=2e-4, abs=1e-6)


def test_swapping_the_sides_negates_the_mean() -> None:
    logits = torch.randn(100, 255, generator=torch.Generator().manual_seed(0)) * 3
    order = bin_of_logit()
    mirrored = logits[:, [int(np.flatnonzero(order == 254 - bin)[0]) for bin in order]]
    bins = twohot_bins(255, CPU)
    torch.testing.assert_close(twohot_mean(mirrored, bins), -twohot_mean(logits, bins), rtol=1e-5, atol=1.0)


def test_mean_is_the_weighted_sum_of_bins() -> None:
    logits = torch.randn(100, 255, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    weights = torch.softmax(logits, -1)
    expected = (weights * torch.tensor(bins_in_numpy()[bin_of_logit()])).sum(-1)
    torch.testing.assert_close(
        twohot_mean(logits.float(), twohot_bins(255, CPU)).double(), expected, rtol=1e-4, atol=1e2
    )


def loss_targets() -> list[float]:
    bins = twohot_bins(255, CPU)
    on_bins = [bins[i].item() for i in (0, 1, 60, 126, 127, 128, 200, 253, 254)]
    return [*on_bins, -1e12, 1e12, -5e8, 5e8, 0.003, -0.7, 1.0, 42.0, -1e5, 3.3e8]


def test_loss_is_the_cross_entropy_with_the_two_hot_encoding() -> None:
    targets = loss_targets()
    logits = torch.randn(len(targets), 255, generator=torch.Generator().manual_seed(2)) * 2
    bins = twohot_bins(255, CPU)
    encodings = encodings_of_logits(targets)
    log_probs = logits.double().numpy()
    log_probs = log_probs - np.log(np.exp(log_probs).sum(-1, keepdims=True))
    expected = -(encodings * log_probs).sum(-1)
    np.testing.assert_allclose(twohot_loss(logits, torch.tensor(targets), bins).numpy(), expected, rtol=1e-4)


def test_gradient_of_the_loss_is_probabilities_minus_encoding() -> None:
    targets = loss_targets()
    bins = twohot_bins(255, CPU)
    logits = torch.randn(len(targets), 255, generator=torch.Generator().manual_seed(3)).requires_grad_()
    twohot_loss(logits, torch.tensor(targets), bins).sum().backward()
    encodings = encodings_of_logits(targets)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), torch.softmax(logits, -1).detach().numpy() - encodings, atol=1e-4)


def test_a_target_on_a_bin_is_one_hot() -> None:
    bins = twohot_bins(255, CPU)
    certain = torch.full((255, 255), -100.0).fill_diagonal_(100.0)
    torch.testing.assert_close(twohot_loss(certain, bins[bin_of_logit()], bins), torch.zeros(255), atol=1e-4, rtol=0)


def test_losses_to_several_targets_are_their_weighted_sum_in_value_and_gradient() -> None:
    bins = twohot_bins(255, CPU)
    generator = torch.Generator().manual_seed(4)
    first = torch.tensor(loss_targets())
    second = torch.where(torch.arange(len(first)) % 2 == 0, first, first.flip(0))  # the same bins, and others
    plain = torch.randn(len(first), 255, generator=generator).requires_grad_()
    fused = plain.detach().clone().requires_grad_()
    weights = torch.randn(len(first), generator=generator)
    expected = 1.0 * twohot_loss(plain, first, bins) + 0.7 * twohot_loss(plain, second, bins)
    found = twohot_losses(fused, (first, second), (1.0, 0.7), bins)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    torch.testing.assert_close(fused.grad, plain.grad, rtol=1e-4, atol=1e-6)


# ---- categorical latents ---------------------------------------------------------------------------------------------


def test_unimix_adds_one_percent_of_uniform() -> None:
    logits = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(4)) * 50
    probs = latent_probs(logits, 0.01)
    exp = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    expected = 0.99 * exp / exp.sum(1, keepdims=True) + 0.01 / 4
    np.testing.assert_allclose(probs.numpy(), expected, atol=1e-6)
    assert probs.min() >= 0.01 / 4 * 0.9999
    assert latent_probs(logits.bfloat16(), 0.01).dtype == torch.float32


def torch_categorical(probs: torch.Tensor) -> torch.distributions.Independent:
    """Class-major ``(N, classes, groups)`` probabilities as torch's own distribution of ``groups`` categoricals."""
    return torch.distributions.Independent(torch.distributions.Categorical(probs=probs.transpose(1, 2)), 1)


def test_kl_and_entropy_agree_with_torch() -> None:
    generator = torch.Generator().manual_seed(5)
    p = latent_probs(torch.randn(9, 4, 6, generator=generator) * 4, 0.01)
    q = latent_probs(torch.randn(9, 4, 6, generator=generator) * 4, 0.01)
    ours, theirs = torch_categorical(p), torch_categorical(q)
    torch.testing.assert_close(
        categorical_kl(p, q), torch.distributions.kl_divergence(ours, theirs), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(categorical_entropy(p), ours.entropy(), rtol=1e-4, atol=1e-4)
    assert torch.equal(categorical_kl(p, p), torch.zeros(9))
    assert (categorical_kl(p, q) > 0.1).all()


def test_samples_follow_their_probabilities() -> None:
    generator = torch.Generator().manual_seed(6)
    probs = latent_probs(torch.randn(1, 5, 3, generator=generator), 0.01)
    n = 20_000
    counts = one_hot_sample(probs.expand(n, -1, -1), torch.rand(n, 3, generator=generator)).sum(0)
    for group in range(3):
        expected = (probs[0, :, group].double() / probs[0, :, group].double().sum()).numpy() * n
        assert stats.chisquare(counts[:, group].numpy(), expected).pvalue > 1e-3


def test_the_sampled_class_is_where_the_noise_falls_in_the_cumulative_distribution() -> None:
    generator = torch.Generator().manual_seed(7)
    probs = latent_probs(torch.randn(500, 6, 4, generator=generator) * 2, 0.01)
    noise = torch.rand(500, 4, generator=generator)
    sample = one_hot_sample(probs, noise)
    cumulative = probs.double().cumsum(1)
    for row in range(500):
        for group in range(4):
            expected = int(np.searchsorted(cumulative[row, :, group].numpy(), float(noise[row, group]), side="right"))
            assert sample[row, :, group].argmax() == expected


@given(
    logits=st.lists(st.floats(-60, 60, width=32), min_size=4, max_size=4),
    noise=st.one_of(st.sampled_from([0.0, JUST_UNDER_ONE, 0.5]), st.floats(0, JUST_UNDER_ONE, width=32)),
    unimix=st.sampled_from([0.0, 0.01]),
)
def test_every_sample_is_exactly_one_hot(logits: list[float], noise: float, unimix: float) -> None:
    probs = latent_probs(torch.tensor(logits)[None, :, None], unimix)
    sample = one_hot_sample(probs, torch.tensor([[noise]]))
    assert sorted(sample.flatten().tolist()) == [0.0, 0.0, 0.0, 1.0]


def test_noise_at_its_edges_chooses_the_first_and_the_last_class() -> None:
    # 96 classes as in the largest size: the cumulative sum of float32 probabilities need not reach 1.
    probs = latent_probs(torch.randn(200, 96, 2, generator=torch.Generator().manual_seed(8)), 0.01)
    assert (one_hot_sample(probs, torch.zeros(200, 2)).argmax(1) == 0).all()
    assert (one_hot_sample(probs, torch.full((200, 2), JUST_UNDER_ONE)).argmax(1) == 95).all()


@pytest.mark.parametrize("classes", [1, 4, 8, 9])
def test_compiled_code_samples_the_same_classes(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(9)
    probs = latent_probs(torch.randn(300, classes, 8, generator=generator) * 3, 0.01)
    noise = torch.rand(300, 8, generator=generator)
    noise[0], noise[1] = 0.0, JUST_UNDER_ONE
    expected = one_hot_sample(probs, noise)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert one_hot_sample(probs, noise).equal(expected)


def test_a_class_of_probability_zero_is_never_drawn() -> None:
    """Sums of probabilities round to less than the largest noise, and beyond them there may be nothing legal."""
    generator = torch.Generator().manual_seed(0)
    legal = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    probs = class_probs(3 * torch.randn(20_000, 7, generator=generator), legal, 0.01)
    assert (probs.cumsum(-1)[:, -1] <= JUST_UNDER_ONE).any()
    for noise in (0.0, 0.5, JUST_UNDER_ONE):
        sample = class_sample(probs, torch.full((20_000,), noise))
        assert (sample.sum(-1) == 1).all() and not (sample * (1 - legal)).any()
        right = (probs.cumsum(-1) > noise).to(torch.uint8).argmax(-1)
        inside = probs.cumsum(-1)[:, -1] > noise
        assert (sample.argmax(-1) == right)[inside].float().mean() > 0.9999


def test_straight_through_has_the_sample_s_value_and_the_probabilities_gradient() -> None:
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(8, 4, 3, generator=generator).requires_grad_()
    weights = torch.randn(8, 4, 3, generator=generator)
    probs = latent_probs(logits, 0.01)
    sample = one_hot_sample(probs, torch.rand(8, 3, generator=generator))
    assert not sample.requires_grad
    through = straight_through(sample, probs)
    assert torch.equal(through, sample)
    (gradient,) = torch.autograd.grad((through * weights).sum(), logits)
    (expected,) = torch.autograd.grad((latent_probs(logits, 0.01) * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 1e-3


# ---- continuous actions ----------------------------------------------------------------------------------------------


def test_bounded_normal_is_torch_s_normal_with_bounded_parameters() -> None:
    generator = torch.Generator().manual_seed(10)
    raw_mean, raw_std = torch.randn(50, generator=generator) * 3, torch.randn(50, generator=generator) * 5
    mean, std = bounded_normal(raw_mean, raw_std)
    torch.testing.assert_close(mean, torch.tanh(raw_mean))
    torch.testing.assert_close(std, 0.9 / (1 + torch.exp(-(raw_std + 2))) + 0.1)
    value = torch.randn(50, generator=generator) * 2
    normal = torch.distributions.Normal(mean, std)
    torch.testing.assert_close(normal_log_prob(mean, std, value), normal.log_prob(value))
    torch.testing.assert_close(normal_entropy(std), normal.entropy())


def test_bounded_normal_stays_in_its_bounds() -> None:
    mean, std = bounded_normal(torch.tensor([-1e9, 0.0, 1e9]), torch.tensor([-1e9, -2.0, 1e9]))
    torch.testing.assert_close(mean, torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(std, torch.tensor([0.1, 0.55, 1.0]))
    assert (
        bounded_normal(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16))[0].dtype
        == torch.float32
    )

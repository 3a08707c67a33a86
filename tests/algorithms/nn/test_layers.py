"""Layers, their initialisation, and the flat buffers under them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oneiros.algorithms.nn.layers import MLP, Block, BlockLinear, Conv, Linear, NormSiLU
from oneiros.algorithms.nn.weights import Weights


def norm_silu_in_numpy(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale
    return y / (1 + np.exp(-y))


def test_norm_is_rms_without_mean_or_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 10, generator=generator, dtype=torch.float64) * 3 + 1
    norm = NormSiLU(10)
    assert [name for name, _ in norm.named_parameters()] == ["scale"]
    with torch.no_grad():
        norm.scale.copy_(torch.randn(10, generator=generator))
    expected = norm_silu_in_numpy(x.numpy(), norm.scale.detach().double().numpy())
    np.testing.assert_allclose(norm(x.float()).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_norm_of_small_inputs_is_held_by_eps_1e_4() -> None:
    out = NormSiLU(4)(torch.full((1, 4), 1e-2))
    value = 1e-2 / math.sqrt(1e-4 + 1e-4)
    torch.testing.assert_close(out, torch.full((1, 4), value / (1 + math.exp(-value))))


def test_norm_runs_in_float32_whatever_comes_in() -> None:
    # 300 values of 200: their squares overflow float16 and are lost in bfloat16's 8 bits.
    for dtype in (torch.float16, torch.bfloat16):
        out = NormSiLU(300)(torch.full((1, 300), 600.0, dtype=dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), torch.full((1, 300), 1 / (1 + math.exp(-1))), rtol=1e-2, atol=0)


def test_norm_of_an_image_is_over_its_channels() -> None:
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))
    norm = NormSiLU(5)
    with torch.no_grad():
        norm.scale.copy_(torch.arange(1.0, 6.0))
    as_image = norm(x)
    as_rows = norm(x.permute(0, 2, 3, 1).reshape(-1, 5)).view(2, 3, 4, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(as_image, as_rows)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: Linear(400, 300), 400),
        (lambda: Linear(100, 300, fan_in=900), 900),
        (lambda: BlockLinear(256, 512, 8), 256),
        (lambda: BlockLinear(256, 512, 8, fan_in=1000), 1000),
        (lambda: Conv(16, 64), 16 * 25),
    ],
)
def test_weights_start_truncated_normal_and_biases_zero(layer: object, fan_in: int) -> None:
    torch.manual_seed(0)
    built = layer()  # type: ignore[operator]
    std = 1.1368 / math.sqrt(fan_in)
    # The normal truncated at two deviations has 0.8796 of its deviation: 1.1368 undoes that.
    assert built.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.03)
    assert built.weight.abs().max().item() <= 2 * std * 1.0001
    assert built.weight.abs().max().item() > 1.9 * std
    assert torch.equal(built.bias, torch.zeros_like(built.bias))


def test_the_output_scale_multiplies_the_initial_weights() -> None:
    torch.manual_seed(0)
    full = MLP(30, 0, 1, 500)
    torch.manual_seed(0)
    small = MLP(30, 0, 1, 500, scale=0.01)
    assert full.out is not None and small.out is not None
    torch.testing.assert_close(small.out.weight, full.out.weight * 0.01)
    silent = MLP(30, 2, 16, 7, scale=0.0)
    assert torch.equal(silent(torch.randn(5, 30)), torch.zeros(5, 7))


def test_block_linear_is_a_block_diagonal_matrix() -> None:
    torch.manual_seed(0)
    layer = BlockLinear(24, 48, 8)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.normal_()
    dense = np.zeros((24, 48))
    for block in range(8):
        dense[3 * block : 3 * block + 3, 6 * block : 6 * block + 6] = layer.weight[block].detach().numpy()
    x = torch.randn(10, 24)
    np.testing.assert_allclose(
        layer(x).detach().numpy(), x.numpy() @ dense + layer.bias.detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_block_linear_refuses_widths_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="20 inputs and 48 outputs do not divide into 8 blocks"):
        BlockLinear(20, 48, 8)


def test_convolution_is_same_padded_cross_correlation() -> None:
    torch.manual_seed(0)
    conv = Conv(2, 3)
    x = torch.randn(1, 2, 6, 7)
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)))
    expected = np.zeros((3, 6, 7))
    for i in range(6):
        for j in range(7):
            expected[:, i, j] = np.einsum("ochw,chw->o", conv.weight.detach().numpy(), padded[:, i : i + 5, j : j + 5])
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 10), (3, 4, 10), (2, 10, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_the_norm_is_autograd_s(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    x = (torch.randn(shape, generator=generator) * 2 + 0.3).to(dtype)
    weight = torch.randn(shape, generator=generator)
    norm = NormSiLU(10)
    with torch.no_grad():
        norm.scale.copy_(torch.randn(10, generator=generator))
    own = x.clone().requires_grad_()
    (norm(own).float() * weight).sum().backward()

    axis = 1 if len(shape) == 4 else -1
    plain = x.double().requires_grad_()
    scale = norm.scale.detach().double().requires_grad_()
    y = plain / (plain.square().mean(axis, keepdim=True) + 1e-4).sqrt()
    y = y * (scale[:, None, None] if len(shape) == 4 else scale)
    (y * torch.sigmoid(y) * weight).sum().backward()
    assert own.grad is not None and norm.scale.grad is not None and plain.grad is not None and scale.grad is not None
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    assert own.grad.dtype == dtype
    torch.testing.assert_close(own.grad.double(), plain.grad, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(norm.scale.grad.double(), scale.grad, rtol=tolerance, atol=5 * tolerance)


# ---- flat buffers and low-precision copies ---------------------------------------------------------------------------


def test_parameters_and_gradients_are_views_of_the_flat_buffers() -> None:
    block = Block(3, 4)
    weights = Weights([block], torch.float32)
    assert weights.flat.numel() == weights.grad.numel() == 3 * 4 + 4 + 4
    weights.flat.fill_(2.0)
    assert all((p == 2).all() for p in block.parameters())
    block(torch.ones(1, 3)).sum().backward()
    flat = torch.cat([p.grad.flatten() for p in block.parameters() if p.grad is not None])
    assert torch.equal(flat, weights.grad)
    assert weights.grad.abs().sum() > 0


def test_low_precision_copies_follow_the_masters_at_each_refresh() -> None:
    block = Block(3, 4)
    weights = Weights([block], torch.bfloat16)
    for _ in range(2):
        weights.refresh()
        low = block.linear.low_weight
        assert low is not None and low.dtype == torch.bfloat16
        assert torch.equal(low, block.linear.weight.bfloat16())
        weights.flat.add_(0.5)


def test_gradients_of_low_precision_copies_reach_the_float32_masters() -> None:
    torch.manual_seed(0)
    block = MLP(8, 2, 16, 4)
    x = torch.randn(32, 8)
    full = Weights([block], torch.float32)
    block(x).square().sum().backward()
    exact = full.grad.clone()
    low = Weights([block], torch.bfloat16)
    for update in range(2):
        low.refresh()
        low.grad.zero_()
        block(x.bfloat16()).float().square().sum().backward()
        assert torch.nn.functional.cosine_similarity(low.grad, exact, dim=0) > 0.999, update
        assert low.grad.norm().item() == pytest.approx(exact.norm().item(), rel=0.02)


def test_the_gradient_of_a_copy_used_at_every_step_of_a_sequence_is_the_sum() -> None:
    """A recurrence uses one copy 64 times: small contributions must not be lost beside the sum of those before."""
    torch.manual_seed(0)
    linear = Linear(16, 16)
    weights = Weights([linear], torch.bfloat16)
    weights.refresh()
    x, d = torch.randn(64, 8, 16).bfloat16(), (torch.randn(64, 8, 16) + 0.5).bfloat16()
    torch.stack([(linear(a) * b).float().sum() for a, b in zip(x, d, strict=True)]).sum().backward()
    exact = torch.einsum("tno,tni->oi", d.double(), x.double())
    assert linear.weight.grad is not None and linear.bias is not None and linear.bias.grad is not None
    assert (linear.weight.grad - exact).norm() / exact.norm() < 0.02
    assert (linear.bias.grad - d.double().sum((0, 1))).norm() / d.double().sum((0, 1)).norm() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_compute_the_same_where_they_are_compiled(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written differently there: a bias is added by whatever follows, blocks are copied by whatever comes before."""
    torch.manual_seed(0)
    layers = [Linear(12, 8), Linear(12, 8, bias=False), BlockLinear(12, 8, 4), BlockLinear(12, 8, 4, bias=False)]
    weights = Weights(layers, dtype)
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).to(dtype)

    def run() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        weights.grad.zero_()
        weights.refresh()
        outs = [layer(x) for layer in layers]
        torch.stack(outs).float().square().sum().backward()
        return [out.detach().float() for out in outs], [grad.clone() for grad in weights.grads]

    for layer in layers:
        if layer.bias is not None:
            layer.bias.data.normal_()
    eager = run()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    limit = 0.01 if dtype == torch.bfloat16 else 1e-6
    for found, expected in zip(run(), eager, strict=True):
        for own, other in zip(found, expected, strict=True):
            assert (own - other).norm() / other.norm() < limit

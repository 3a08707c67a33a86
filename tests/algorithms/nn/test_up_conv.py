"""Convolving an enlarged picture without enlarging it is the same sum, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from oneiros.algorithms.nn.layers import Conv
from oneiros.algorithms.nn.up_conv import UpConv
from torch import Tensor
from torch.nn import functional as F


def enlarged(conv: Conv, x: Tensor) -> Tensor:
    """The same in two steps."""
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), conv.weight, conv.bias, padding=2)


@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (2, 5, 1, 1), (2, 5, 3, 6)])
def test_it_is_the_convolution_of_the_enlargement(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = UpConv(5, 7)
    with torch.no_grad():
        conv.bias.normal_(generator=generator)  # type: ignore[union-attr]
    x = torch.randn(shape, generator=generator, requires_grad=True)
    out, expected = conv(x), enlarged(conv, x)
    assert out.shape == (shape[0], 7, 2 * shape[2], 2 * shape[3])
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(out.shape, generator=generator)
    inputs = [x, *conv.parameters()]
    for found, wanted in zip(
        torch.autograd.grad((out * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_its_parameters_are_those_of_the_convolution() -> None:
    torch.manual_seed(3)
    up = UpConv(4, 6)
    torch.manual_seed(3)
    plain = Conv(4, 6)
    assert set(up.state_dict()) == {"weight", "bias"}
    plain.load_state_dict(up.state_dict())
    assert torch.equal(up.weight, plain.weight)
    assert up.weight.shape == (6, 4, 5, 5)


def test_low_precision_is_as_near_as_the_dtype_allows() -> None:
    torch.manual_seed(1)
    conv = UpConv(16, 8)
    x = torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        expected = enlarged(conv, x)
        conv.low_weight, conv.low_bias = conv.weight.bfloat16(), conv.bias.bfloat16()  # type: ignore[union-attr]
        low = conv(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).abs().max() < 0.02 * expected.abs().max()

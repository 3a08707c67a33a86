"""The gates of the GRU: the paper's formula, and its gradient in closed form."""

from __future__ import annotations

import pytest
import torch
from oneiros.algorithms.nn.gates import gated
from torch import Tensor


def plain(gates: Tensor, state: Tensor) -> Tensor:
    reset, candidate, update = gates.unbind(2)
    old, u = state.view_as(reset), torch.sigmoid(update - 1)
    return (u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * old).flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_autograd_s(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    gates = (torch.randn(5, 4, 3, 6, generator=generator) * 2).to(dtype).requires_grad_()
    state = (torch.rand(5, 24, generator=generator) * 2 - 1).to(dtype).requires_grad_()
    weight = torch.randn(5, 24, generator=generator)
    exact = [x.detach().double().requires_grad_() for x in (gates, state)]
    out, expected = gated(gates, state), plain(*exact)
    (out.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    for own, true in zip((gates, state), exact, strict=True):
        assert own.grad is not None and true.grad is not None and own.grad.dtype == dtype
        torch.testing.assert_close(own.grad.double(), true.grad, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        assert torch.equal(gated(gates, state), out)

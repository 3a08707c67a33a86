"""Low-precision copies on a GPU: at addresses that its products take, and of the same values as on the CPU."""

from __future__ import annotations

import pytest
import torch
from oneiros.algorithms.nn.layers import MLP, NormSiLU
from oneiros.algorithms.nn.weights import ALIGNED, Weights
from torch import Tensor


def odd() -> list[torch.nn.Module]:
    """Modules whose parameters begin at odd places in one buffer."""
    torch.manual_seed(0)
    return [MLP(7, 2, 5, 3), NormSiLU(3), MLP(5, 1, 9, 255)]


def test_copies_begin_at_addresses_that_products_take() -> None:
    weights = Weights([module.to("meta") for module in odd()], torch.bfloat16)
    assert any(view.storage_offset() % 8 for view in weights.params)
    assert all(view.storage_offset() % ALIGNED == 0 for view in weights.low_views)
    weights.refresh()
    assert all(layer.low_weight is not None and layer.low_weight.dtype == torch.bfloat16 for layer in weights.layers)


@pytest.mark.parametrize("trained", [True, False])
def test_copies_and_their_gradients_are_those_of_the_cpu(trained: bool) -> None:
    def results(aligned: bool) -> tuple[list[Tensor], Tensor]:
        modules = odd()
        weights = Weights(modules, torch.bfloat16, trained)
        if aligned:
            low = weights._aligned()
            weights.aligned, weights.low_views = True, [low[id(p)] for p in weights.masters]
        weights.refresh()
        x = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).bfloat16()
        out = modules[0](x)
        if trained:
            (out.float().square().sum() + modules[2](x[:, :5]).float().square().sum()).backward()
        return [layer.low_weight.detach() for layer in weights.layers], weights.grad

    for found, expected in zip(*(results(aligned)[0] for aligned in (True, False)), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(results(True)[1], results(False)[1])

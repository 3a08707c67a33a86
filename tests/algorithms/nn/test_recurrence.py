"""Weight gradients that are formed after a recurrence's backward pass are those that autograd sums step by step."""

from __future__ import annotations

import pytest
import torch
from oneiros.algorithms.nn.layers import BlockLinear, Linear
from oneiros.algorithms.nn.recurrence import PLAIN, Plain, Tapping, Taps
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn

STEPS, ROWS = 64, 8


class Cell(nn.Module):
    """A recurrence with a layer of each kind, with and without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = Linear(16, 16)
        self.bare = Linear(16, 16, bias=False)
        self.blocks = BlockLinear(16, 16, 4)
        self.bare_blocks = BlockLinear(16, 16, 4, bias=False)
        self.layers: list[Linear | BlockLinear] = [self.dense, self.bare, self.blocks, self.bare_blocks]

    def forward(self, x: Tensor, y: Tensor, way: Plain = PLAIN) -> Tensor:
        hidden = torch.tanh(way.layer(self.dense, x) + way.layer(self.bare, y))
        return torch.tanh(way.layer(self.blocks, hidden) + way.layer(self.bare_blocks, x))


def unrolled(cell: Cell, x: Tensor, inputs: Tensor, taps: Taps | None = None) -> Tensor:
    outs = []
    for t, y in enumerate(inputs.unbind(0)):
        if taps is None:
            x = cell(x, y)
        else:
            way = Tapping(taps.steps[t])
            x = cell(x, y, way)
            taps.record(way.read)
        outs.append(x)
    return torch.stack(outs)


def gradients(dtype: torch.dtype, deferred: bool) -> tuple[list[Tensor], Tensor, Tensor]:
    """Of the weights, of the start and of the inputs."""
    torch.manual_seed(0)
    cell = Cell()
    generator = torch.Generator().manual_seed(1)
    for layer in cell.layers:
        if layer.bias is not None:
            layer.bias.data.copy_(0.1 * torch.randn(16, generator=generator))
    weights = Weights([cell], dtype)
    weights.refresh()
    start, inputs = torch.randn(ROWS, 16, generator=generator), torch.randn(STEPS, ROWS, 16, generator=generator)
    goal = torch.randn(STEPS, ROWS, 16, generator=generator)
    start, inputs = start.to(dtype).requires_grad_(), inputs.to(dtype).requires_grad_()
    out = unrolled(cell, start, inputs, Taps(cell.layers, STEPS, ROWS, dtype) if deferred else None)
    (out.float() * goal).sum().backward()
    assert start.grad is not None and inputs.grad is not None
    return [g.clone() for g in weights.grads], start.grad, inputs.grad


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_deferred_gradients_are_autograd_s() -> None:
    plain, deferred = gradients(torch.float32, False), gradients(torch.float32, True)
    for own, expected in zip(deferred[0], plain[0], strict=True):
        assert expected.norm() > 0 and distance(own, expected) < 1e-6
    assert distance(deferred[1], plain[1]) < 1e-6 and distance(deferred[2], plain[2]) < 1e-6


def test_deferred_gradients_of_low_precision_copies_are_rounded_once() -> None:
    """Summed step by step in bfloat16, the part of each step is rounded to what the sum so far can resolve."""
    torch.manual_seed(0)
    linear, blocks = Linear(16, 16), BlockLinear(16, 16, 4)
    weights = Weights([linear, blocks], torch.bfloat16)
    weights.refresh()
    x, d = torch.randn(64, 8, 16).bfloat16(), (torch.randn(64, 8, 16) + 0.5).bfloat16()
    taps = Taps([linear, blocks], 64, 8, torch.bfloat16)
    total = torch.zeros(())
    for a, b, tap in zip(x, d, taps.steps, strict=True):
        way = Tapping(tap)
        total = total + ((way.layer(linear, a) + way.layer(blocks, a)) * b).float().sum()
        taps.record(way.read)
    total.backward()
    exact = torch.einsum("tno,tni->oi", d.double(), x.double())
    in_blocks = torch.stack([exact[4 * g : 4 * g + 4, 4 * g : 4 * g + 4].t() for g in range(4)])
    summed = d.double().sum((0, 1))
    for own, expected in zip(weights.grads, (summed, exact, summed, in_blocks), strict=True):
        assert distance(own, expected) < 0.003, "half a unit of bfloat16's eighth bit is 0.002"


def test_what_a_step_has_read_holds_no_graph() -> None:
    cell = Cell()
    way = Tapping(Taps(cell.layers, 2, ROWS, torch.float32).steps[0])
    cell(torch.randn(ROWS, 16, requires_grad=True), torch.randn(ROWS, 16), way)
    assert len(way.read) == 4 and not any(x.requires_grad for x in way.read)


def test_a_layer_without_a_tap_is_a_mistake() -> None:
    cell = Cell()
    way = Tapping(Taps(cell.layers[:2], 1, ROWS, torch.float32).steps[0])
    with pytest.raises(IndexError):
        cell(torch.randn(ROWS, 16), torch.randn(ROWS, 16), way)

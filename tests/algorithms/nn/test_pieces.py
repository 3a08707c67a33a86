"""Compiled pieces: what they share, what tells them apart, and how their compiler starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oneiros.algorithms.nn.pieces import compiled, make_ready
from oneiros.algorithms.nn.precision import cpu_flags, has_compiler
from oneiros.algorithms.nn.vector_units import trust_vector_units
from torch import Tensor, nn

needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler on the PATH")


class Scaled(nn.Module):
    """Multiplies by a parameter and by a number that a graph takes for a constant."""

    def __init__(self, weight: float, factor: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.factor = factor

    def apply_to(self, x: Tensor) -> Tensor:
        return x * self.weight * self.factor


def graphs() -> int:
    import torch._dynamo.utils

    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@needs_compiler
def test_pieces_of_one_key_share_a_graph_and_those_of_another_have_their_own() -> None:
    make_ready("cpu")
    x = torch.ones(3)
    first, alike, other = Scaled(2.0, 5.0), Scaled(3.0, 5.0), Scaled(2.0, 7.0)
    torch.testing.assert_close(compiled(first.apply_to, "five")(x), torch.full((3,), 10.0))
    before = graphs()
    torch.testing.assert_close(compiled(alike.apply_to, "five")(x), torch.full((3,), 15.0))
    assert graphs() == before, "the same structure was compiled twice"
    torch.testing.assert_close(compiled(other.apply_to, "seven")(x), torch.full((3,), 14.0))


@needs_compiler
def test_a_piece_follows_its_arguments_and_whether_gradients_are_on() -> None:
    make_ready("cpu")
    module = Scaled(2.0, 5.0)
    piece = compiled(module.apply_to, "arguments")
    with torch.no_grad():
        assert not piece(torch.ones(3)).requires_grad
    piece(torch.ones(3)).sum().backward()
    assert module.weight.grad is not None and float(module.weight.grad) == 15.0
    assert piece(torch.ones(4)).shape == (4,)
    assert piece(torch.ones(3, dtype=torch.float64)).dtype == torch.float64


@needs_compiler
@pytest.mark.skipif(not cpu_flags(), reason="the kernel does not name the processor's flags")
def test_vector_units_are_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpu_vec_isa
    from torch._inductor.runtime import cache_dir_utils

    monkeypatch.setattr(cache_dir_utils, "cache_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(config.cpp, "vec_isa_ok", None)
    named: list[Any] = cpu_vec_isa.valid_vec_isa_list()
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", lambda: named[1:])
    assert not trust_vector_units() and config.cpp.vec_isa_ok is None, "one that is named does not work"
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", lambda: named)
    assert trust_vector_units() and config.cpp.vec_isa_ok

    def never() -> list[Any]:
        raise AssertionError("tried again")

    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", never)
    monkeypatch.setattr(config.cpp, "vec_isa_ok", None)
    assert trust_vector_units() and config.cpp.vec_isa_ok

"""The scan over a sequence as a GPU does it: scales repeated for every row, their gradients summed once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oneiros.algorithms.dreamerv3.rssm import RSSM, Latents
from oneiros.algorithms.nn.recurrence import scale_taps
from torch import Tensor

T, N = 5, 3


def gradients(repeated: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Of every parameter and of the tokens, after the scan of random rows with an end inside."""
    torch.manual_seed(0)
    rssm = RSSM(16, 8, groups=4, classes=4, tokens=5, action=3)
    for norm in rssm.norms:
        norm.scale.data.uniform_(0.5, 1.5)
    tokens, action = torch.randn(T, N, 5, requires_grad=True), torch.randn(T, N, 3)
    first = torch.zeros(T, N, dtype=torch.bool)
    first[2, 1] = True
    if repeated:
        scales, step = iter(scale_taps(rssm.norms, T, N)), rssm.tapped_step

        def with_scales(*inputs: Any) -> Any:
            return step(*inputs[:-1], (*inputs[-1], *next(scales)))

        rssm.tapped_step = with_scales  # type: ignore[method-assign]
    start = rssm.initial(N, torch.float32, torch.device("cpu"))
    latents, logits = rssm.observe(tokens, action, first, Latents(start.deter, start.stoch), torch.rand(T, N, 4))
    (latents.feat.square().sum() + (logits * torch.randn(logits.shape)).sum()).backward()
    found = {name: param.grad for name, param in rssm.named_parameters() if param.grad is not None}
    assert tokens.grad is not None
    return found, tokens.grad


@pytest.mark.parametrize("compiling", [False, True], ids=["closed form", "as compiled"])
def test_gradients_are_those_of_one_scale_for_all_rows(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    (plain, expected), (repeated, found) = gradients(False), gradients(True)
    assert plain.keys() == repeated.keys() and any("norm.scale" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(repeated[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

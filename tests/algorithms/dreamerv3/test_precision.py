"""The same update in bfloat16 and compiled: close to, and equal to, the plain float32 one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.nn import precision
from oneiros.algorithms.nn.precision import choose_compile, choose_precision
from torch import Tensor

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]
OBS = {"obs": spaces.Box(-5, 5, (5,)), "image": spaces.Box(0, 255, (16, 16, 3), dtype="uint8")}  # type: ignore[arg-type]
ACTION = {"action/a": spaces.Discrete(3), "action/b": spaces.Box(-1, 1, (2,))}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def make(make_agent: Make, **overrides: Any) -> DreamerV3:
    return make_agent(OBS, ACTION, groups=8, units=32, hidden=32, deter=64, learning_rate=3e-3, warmup=0, **overrides)


def trained(make_agent: Make, make_rows: MakeRows, **overrides: Any) -> DreamerV3:
    """An agent some updates old, so that no head is silent any more."""
    agent = make(make_agent, **overrides)
    for update in range(15):
        agent.update(make_rows(agent, batch=8, length=9, seed=update))
    return agent


def clear_far_bins(agent: DreamerV3) -> None:
    """As after long training, no mass lies there: at exp(20) a bin, the rounding of some would be all that is seen."""
    outward = torch.arange(1, 128) / 127
    for head in (agent.model.reward, agent.critic, agent.slow_critic):
        assert head.out is not None and head.out.bias is not None
        head.out.bias.data -= 60 * torch.cat([outward, torch.zeros(1), outward])


def gradient(agent: DreamerV3, rows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    agent.weights.refresh()
    agent.slow_weights.refresh()
    agent.weights.grad.zero_()
    total, _, metrics = agent.loss(agent.prepare(rows))
    total.backward()
    return agent.weights.grad.clone(), metrics


@pytest.mark.parametrize("scan", [torch.float32, torch.bfloat16], ids=["float32 recurrence", "bfloat16 recurrence"])
def test_bfloat16_follows_float32(scan: torch.dtype, make_agent: Make, make_rows: MakeRows) -> None:
    old = trained(make_agent, make_rows)
    clear_far_bins(old)
    state, rows = old.state_dict(), make_rows(old, batch=16, length=17, seed=99)
    agents = {name: make(make_agent, precision=name) for name in ("float32", "bfloat16")}
    for agent in agents.values():
        agent.load_state_dict(state)
    agents["bfloat16"].scan_dtype = scan
    (exact, plain), (rough, low) = (gradient(agents[name], rows) for name in ("float32", "bfloat16"))
    for key in plain:
        if key.startswith("loss/") and key != "loss/policy":
            assert low[key].item() == pytest.approx(plain[key].item(), rel=0.02), key
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.99
    assert rough.norm().item() == pytest.approx(exact.norm().item(), rel=0.05)


def test_training_in_bfloat16_keeps_float32_masters(make_agent: Make, make_rows: MakeRows) -> None:
    agent = trained(make_agent, make_rows, precision="bfloat16")
    assert agent.dtype == torch.bfloat16
    assert agent.weights.flat.dtype == agent.optimiser.rms.dtype == torch.float32
    assert not torch.equal(agent.weights.flat, agent.weights.flat.bfloat16().float())
    assert agent.optimiser.nonfinite == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the compiler, on a busy machine
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for torch.compile")
def test_compiled_updates_equal_plain_ones(make_agent: Make, make_rows: MakeRows) -> None:
    plain = make_agent(action=ACTION, learning_rate=3e-3, warmup=0, imagination_length=2)
    for update in range(15):
        plain.update(make_rows(plain, seed=update))
    clear_far_bins(plain)
    state = plain.state_dict()
    compiled = make_agent(action=ACTION, learning_rate=3e-3, warmup=0, imagination_length=2, compile="on")
    compiled.load_state_dict(state)
    for update in range(3):
        rows = make_rows(plain, batch=4, length=5, seed=100 + update)
        (expected, latents), (found, refreshed) = plain.update(rows), compiled.update(rows)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
        assert torch.equal(refreshed["stoch"], latents["stoch"])
        torch.testing.assert_close(refreshed["deter"], latents["deter"], rtol=0, atol=2e-3)
    after = compiled.state_dict()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(after[key], value, rtol=1e-2, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


def test_what_is_compiled_for_a_gpu_alone_is_a_whole_graph(
    make_agent: Make, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's front end, which is the same everywhere, finds nothing in it that it would have to leave out."""
    agent = make(make_agent)
    rows = agent.prepare(make_rows(agent))
    obs = {key: rows[key] for key in OBS}
    feat = torch.randn(6, agent.model.features, generator=torch.Generator().manual_seed(0))
    for plain, inputs in ((agent.encode, (obs,)), (agent.value, (feat,))):
        traced: Any = torch.compile(plain, dynamic=False, fullgraph=True, backend="eager")
        torch.testing.assert_close(traced(*inputs), plain(*inputs), rtol=1e-4, atol=1e-5)
    one, other = (make(make_agent).optimiser for _ in range(2))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    other.compile()
    for optimiser in (one, other):
        for _ in range(2):
            optimiser.weights.grad.copy_(torch.linspace(-1, 1, optimiser.weights.grad.numel()))
            optimiser.step()
    torch.testing.assert_close(other.weights.flat, one.weights.flat)


# ---- what is chosen --------------------------------------------------------------------------------------------------


def test_bfloat16_only_where_the_processor_has_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    for flags, expected in (
        ({"avx2"}, torch.float32),
        ({"amx_bf16"}, torch.bfloat16),
        ({"avx512_bf16"}, torch.bfloat16),
    ):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert choose_precision("auto", CPU) == expected
    assert choose_precision("auto", CUDA) == torch.bfloat16


def test_compiling_without_a_compiler_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_compiler", lambda: False)
    with pytest.raises(ValueError, match=r"compile=on needs a C\+\+ compiler .* set compile=off"):
        choose_compile("on", CPU)
    assert not choose_compile("auto", CPU) and not choose_compile("off", CPU)
    monkeypatch.setattr(precision, "has_compiler", lambda: True)
    assert choose_compile("on", CPU) and choose_compile("auto", CPU) and not choose_compile("off", CPU)


def test_compiling_for_cuda_without_its_tools_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: dict[str, bool] = {"triton": True, "gcc": True}
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: "spec" if found[name] else None)
    monkeypatch.setattr(precision.shutil, "which", lambda name: name if found.get(name) else None)
    monkeypatch.setattr(precision.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (tmp_path / "Python.h").touch()
    assert choose_compile("on", CUDA) and choose_compile("auto", CUDA) and not choose_compile("off", CUDA)
    for lacking, words in (("triton", "Triton"), ("gcc", "a C compiler"), ("Python.h", "Python's headers")):
        if lacking == "Python.h":
            (tmp_path / "Python.h").unlink()
        else:
            found[lacking] = False
        with pytest.raises(ValueError, match=f"compile=on needs {words}.*; install one or set compile=off"):
            choose_compile("on", CUDA)
        assert not choose_compile("auto", CUDA) and not choose_compile("off", CUDA)
        found[lacking] = True
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, bf16, compiles in (((6, 1), False, False), ((7, 5), False, True), ((9, 0), True, True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert choose_compile("auto", CUDA) is compiles
        assert choose_precision("auto", CUDA) == (torch.bfloat16 if bf16 else torch.float32)

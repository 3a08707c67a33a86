"""The captured update is the plain one: losses, parameters, optimiser, normalisers, write-back, and after a resume."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.nn.capture import WARM_UP, Captured
from torch import Tensor

pytestmark = pytest.mark.gpu

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]
UPDATES = WARM_UP + 5
V1 = {"latent": "gaussian", "groups": 30, "actor_gradient": "dynamics", "slow_regulariser": 0.0}
V2 = {"free_nats": 0.0, "unimix": 0.0, "actor_unimix": 0.0, "loss_scales": {"dyn": 0.8, "rep": 0.2, "repval": 0.0}}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor], begin: dict[str, Tensor]) -> dict[str, float]:
    """How far apart two states are in proportion to how far they have come, by the first words of their names."""
    sums: dict[str, list[float]] = {}
    for name, value in expected.items():
        if value.is_floating_point():
            apart, come = sums.setdefault(name.split("/")[0], [0.0, 0.0])
            gap, way = (found[name] - value).double(), (value - begin[name]).double()
            sums[name.split("/")[0]] = [apart + float(gap.square().sum()), come + float(way.square().sum())]
    return {name: (apart / max(come, 1e-30)) ** 0.5 for name, (apart, come) in sums.items()}


def compare(plain: DreamerV3, other: DreamerV3, make_rows: MakeRows, tolerance: float) -> None:
    """Train both on the same rows and noise from the same state."""
    state = plain.state_dict()
    other.load_state_dict(state)
    for update in range(UPDATES):
        rows = make_rows(plain, update)
        (expected, latents), (found, refreshed) = plain.update(rows), other.update(rows)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                found[key],
                value,
                rtol=10 * tolerance,
                atol=tolerance,
                msg=lambda m, key=key, u=update: f"{u} {key}: {m}",
            )
        same = torch.isclose(refreshed["stoch"].float(), latents["stoch"].float(), atol=0.01).float().mean().item()
        assert same > 1 - tolerance, f"update {update}: {same:.4f} of the latents written back agree"
        torch.testing.assert_close(refreshed["signal"], latents["signal"], rtol=10 * tolerance, atol=tolerance)
    apart = distance(other.state_dict(), plain.state_dict(), state)
    assert all(gap < tolerance for gap in apart.values()), apart
    assert torch.equal(other.generator.get_state(), plain.generator.get_state())
    assert plain.optimiser.nonfinite.item() == other.optimiser.nonfinite.item() == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["state", "image"])
def test_captured_updates_equal_plain_ones(make_agent: Make, make_rows: MakeRows, kind: str, precision: str) -> None:
    plain = make_agent(kind, precision=precision, cuda_graph=False)
    captured = make_agent(kind, precision=precision)
    compare(plain, captured, make_rows, 1e-3 if precision == "float32" else 1e-2)
    assert isinstance(captured._backward, Captured) and captured._backward.graph is not None
    assert isinstance(captured._step, Captured) and captured._step.graph is not None


@pytest.mark.parametrize("parts", [V1, V2], ids=["dreamerv1", "dreamerv2"])
def test_captured_updates_of_earlier_dreamers_equal_plain_ones(
    make_agent: Make, make_rows: MakeRows, parts: dict[str, Any]
) -> None:
    plain = make_agent(precision="float32", cuda_graph=False, **parts)
    compare(plain, make_agent(precision="float32", **parts), make_rows, 1e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)  # the compiler
def test_compiled_and_captured_updates_equal_plain_ones(make_agent: Make, make_rows: MakeRows) -> None:
    plain = make_agent("image", precision="float32", cuda_graph=False)
    compare(plain, make_agent("image", precision="float32", compile="on"), make_rows, 2e-2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("compile", ["off", "on"])
def test_silent_heads_predict_exactly_zero(make_agent: Make, make_rows: MakeRows, compile: str) -> None:
    """Two-hot's zero at initialisation: bins up to exp(20) must cancel to the last bit, fused or not."""
    agent = make_agent("image", compile=compile, warmup=1000)
    metrics, _ = agent.update(make_rows(agent, 0))
    assert metrics["imagined/reward"].item() == metrics["imagined/value"].item() == metrics["replay/value"].item() == 0


def test_a_state_is_resumed_into_a_captured_and_into_a_new_agent(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent()
    for update in range(WARM_UP + 2):
        agent.update(make_rows(agent, update))
    state = agent.state_dict()

    def go_on(other: DreamerV3) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        metrics = [
            {k: v.clone() for k, v in other.update(make_rows(other, 100 + i))[0].items()} for i in range(WARM_UP + 2)
        ]
        return other.state_dict(), metrics

    expected, expected_metrics = go_on(agent)
    assert int(expected["updates"]) == 2 * (WARM_UP + 2)
    agent.load_state_dict(state)
    new = make_agent()
    new.load_state_dict(state)
    for name, (found, metrics) in {"itself": go_on(agent), "a new one": go_on(new)}.items():
        assert torch.equal(found["generator/update"], expected["generator/update"]), name
        assert all(gap < 1e-2 for gap in distance(found, expected, state).values()), (
            name,
            distance(found, expected, state),
        )
        for mine, theirs in zip(metrics, expected_metrics, strict=True):
            torch.testing.assert_close(mine["loss/total"], theirs["loss/total"], rtol=1e-2, atol=1e-2)


def test_noise_differs_from_replay_to_replay(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(learning_rate=1e-12)
    rows = make_rows(agent, 0)
    drawn = [agent.update(rows)[1]["stoch"].clone() for _ in range(WARM_UP + 3)]
    assert all(not torch.equal(a, b) for a, b in pairwise(drawn))


def test_a_gradient_that_is_not_finite_is_skipped_by_a_replay(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent()
    for update in range(WARM_UP + 1):
        agent.update(make_rows(agent, update))
    before = agent.weights.flat.clone()
    rows = make_rows(agent, 50)
    rows["reward"][0, 3] = float("nan")
    assert agent.update(rows)[0]["nonfinite"].item() == 1
    assert torch.equal(agent.weights.flat, before)
    assert agent.update(make_rows(agent, 51))[0]["nonfinite"].item() == 0
    assert not torch.equal(agent.weights.flat, before)


def test_nothing_in_an_update_waits_for_the_device(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent("image")
    batches = [make_rows(agent, update) for update in range(WARM_UP + 3)]
    agent.update(batches[0])  # libraries may wait while they are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:WARM_UP]:
            agent.update(batch)
        torch.cuda.set_sync_debug_mode("default")  # recording begins by waiting
        agent.update(batches[WARM_UP])
        torch.cuda.set_sync_debug_mode("error")
        for batch in batches[WARM_UP + 1 :]:
            agent.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_another_device_than_the_current_one(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent("image", "cuda:1")
    for update in range(WARM_UP + 3):
        metrics, _ = agent.update(make_rows(agent, update))
    assert torch.cuda.current_device() == 0
    assert metrics["loss/total"].device == torch.device("cuda", 1) and metrics["loss/total"].isfinite()

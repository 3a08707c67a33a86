"""The whole update can be captured: nothing in it touches another device or waits. Tried on a stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE, Unrecordable, Watch, moved, stand_in
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.nn import capture
from torch import Tensor

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]

VECTOR = {"obs": spaces.Box(-np.inf, np.inf, (5,), np.float32)}
IMAGE = {"obs": spaces.Box(0, 255, (16, 16, 3), np.uint8)}
MIXED = {**VECTOR, "image": IMAGE["obs"], "mode": spaces.Discrete(4), "flags": spaces.MultiBinary(3)}
MASKED = {**VECTOR, "action_mask": spaces.MultiBinary(3)}
BOX = {"action": spaces.Box(-1, 1, (2,), np.float32)}
CHOICE = {"action": spaces.Discrete(3)}
BOTH = {"action/a": spaces.MultiDiscrete([3, 2]), "action/b": BOX["action"]}
V1 = {"latent": "gaussian", "actor_gradient": "dynamics", "slow_regulariser": 0.0, "loss_scales": {"repval": 0.0}}
V2 = {"free_nats": 0.0, "unimix": 0.0, "actor_unimix": 0.0, "loss_scales": {"dyn": 0.8, "rep": 0.2, "repval": 0.0}}
CASES = {
    "state": (VECTOR, BOX, {}),
    "image": (IMAGE, CHOICE, {}),
    "everything": (MIXED, BOTH, {}),
    "masked": (MASKED, CHOICE, {}),
    "float32": (VECTOR, CHOICE, {"precision": "float32"}),
    "few starts, no context": (VECTOR, CHOICE, {"imagination_starts": 3, "replay_context": 0}),
    "annealed, unclipped": (VECTOR, BOX, {"warmup": 2, "anneal": 9, "clip": 0.0}),
    "dreamerv1": (VECTOR, BOX, V1),
    "dreamerv1 from images, choosing": (IMAGE, CHOICE, V1),
    "dreamerv2": (VECTOR, CHOICE, V2),
}


@pytest.mark.parametrize("case", CASES)
def test_an_update_can_be_captured(
    make_agent: Make, make_rows: MakeRows, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "WARM_UP", 0)
    obs, action, overrides = CASES[case]
    overrides = {"imagination_length": 2, **overrides}
    plain = make_agent(obs, action, **{"precision": "bfloat16", **overrides})
    batch = make_rows(plain)
    batch["latent_valid"] = torch.zeros(batch["reward"].shape[:1], dtype=torch.bool)
    if overrides.get("latent") == "gaussian":
        batch["latent/stoch"] = batch["latent/stoch"].half()
    expected, refreshed = plain.update(batch)
    with stand_in() as watches:
        agent = make_agent(obs, action, device="meta", **{"precision": "bfloat16", **overrides})
        agent.capture()
        assert agent.dtype == agent.scan_dtype == (torch.float32 if case == "float32" else torch.bfloat16)
        for _ in range(2):
            metrics, latents = agent.update(moved(batch))
        assert len(watches) == 2, "what comes before gradients are averaged over learners, and what comes after"
        assert metrics.keys() == expected.keys()
        assert all(value.device == DEVICE and value.shape == () for value in metrics.values())
        assert {k: (v.shape, v.dtype) for k, v in latents.items()} == {
            k: (v.shape, v.dtype) for k, v in refreshed.items()
        }
        assert agent.updates.device.type == "cpu"


@pytest.mark.parametrize("case", ["everything", "masked", "dreamerv1"])
def test_acting_and_reporting_stay_on_the_device(make_agent: Make, make_rows: MakeRows, case: str) -> None:
    obs, action, overrides = CASES[case]
    batch = make_rows(make_agent(obs, action, **overrides))
    if overrides.get("latent") == "gaussian":
        batch["latent/stoch"] = batch["latent/stoch"].half()
    with stand_in():
        for role in ("learner", "policy"):
            agent = make_agent(obs, action, device="meta", role=role, precision="bfloat16", **overrides)
            state, first = agent.initial_state(3), torch.zeros(3, dtype=torch.bool)
            for mode in ("train", "eval"):
                seen = {k: torch.empty(3, *v.shape[2:], dtype=v.dtype) for k, v in batch.items() if k in obs}
                chosen, state, latents = agent.act(seen, first, state, mode)
                assert {x.device.type for part in (chosen, state, latents) for x in part.values()} == {"meta"}
        learner = make_agent(obs, action, device="meta", precision="bfloat16", **overrides)
        learner.update(moved(batch))
        assert {x.device.type for x in learner.report(moved(batch)).values()} == {"meta"}


def test_several_learners_average_between_two_graphs(
    make_agent: Make, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "WARM_UP", 1)
    batch = make_rows(make_agent())
    done: list[str] = []
    with stand_in() as watches:
        agent = make_agent(device="meta", precision="bfloat16", imagination_length=2)
        agent.capture()
        agent.all_reduce = lambda grad: done.append(f"averaged after {len(watches)} recordings")

        def gather(returns: Tensor) -> Tensor:
            done.append("gathered")
            return torch.cat([returns, returns])

        agent.all_gather = gather
        for _ in range(3):
            agent.update(moved(batch))
        plain = ["gathered", "averaged after 0 recordings"]
        assert done == [*plain, "gathered", "averaged after 1 recordings", "averaged after 2 recordings"]


# ---- what the watch is worth -----------------------------------------------------------------------------------------


def test_what_cannot_be_captured_is_refused() -> None:
    x, host = torch.ones(3, device=DEVICE), torch.ones(3)
    refused: dict[str, Callable[[], Any]] = {
        "number": lambda: x.sum().item(),
        "condition": lambda: bool(x.sum() > 0),
        "list": x.tolist,
        "rows by a mask": lambda: x[x > 0],
        "places": x.nonzero,
        "a mix": lambda: x + host,
        "a mix with a number on the CPU": lambda: x * host.sum(),
        "to the CPU": x.cpu,
        "from the CPU": lambda: host.to(DEVICE),
        "copied from the CPU": lambda: x.copy_(host),
        "made from Python's numbers": lambda: torch.tensor([1.0, 2.0], device=DEVICE),
    }
    for what, act in refused.items():
        with Watch(), pytest.raises((Unrecordable, RuntimeError, NotImplementedError)):
            act()
            pytest.fail(what)
    with Watch():
        assert torch.where(x > 0, x * 2, -1.0).sum().device == DEVICE


def test_launches_are_counted() -> None:
    x = torch.ones(4, 4, device=DEVICE)
    with Watch() as watch:
        y = torch.addmm(x, x, x).t()[:2].reshape(-1) * 2
        torch._foreach_add_([x, y], [x, y])
        torch._foreach_mul_([x, y], [x.sum(), y.sum()])
    assert watch.launches == {"addmm": 2, "clone": 1, "mul": 1, "_foreach_add_": 1, "sum": 2, "_foreach_mul_": 2}
    assert watch.kernels == 9
    assert watch.moved > 4 * 16 * 4

"""The whole update can be captured: nothing in it touches another device or waits. Tried on a stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from device import DEVICE, moved, stand_in
from oneiros.algorithms.belief import Belief
from oneiros.algorithms.nn import capture

TALKING = {"tokens": 2, "vocabulary": 4}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "talking": {"channel": TALKING},
    "talking where it helps, shuffled, under a budget": {
        "channel": {**TALKING, "gate": "believed_wrong", "shuffled": True, "bit_budget": 16.0, "drop_rate": 0.1}
    },
    "centralised": {"variant": "centralised"},
    "independent": {"variant": "independent"},
    "weights of their own": {"weights": "separate"},
    "team": {"reward": "team", "first_order": False, "imagination_starts": 3, "replay_context": 0},
}


@pytest.mark.parametrize("case", CASES)
def test_an_update_can_be_captured(
    make_agent: Callable[..., Belief],
    make_batch: Callable[..., dict[str, torch.Tensor]],
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "WARM_UP", 0)
    plain = make_agent(**CASES[case])
    batch = make_batch(plain)
    batch["latent_valid"] = torch.ones(batch["reward"].shape[0], dtype=torch.bool)
    expected, refreshed = plain.update(batch)
    with stand_in() as watches:
        agent = make_agent(device="meta", rough=0.0, **CASES[case])
        agent.capture()
        for _ in range(2):
            metrics, latents = agent.update(moved(batch))
        assert len(watches) == 2
        assert metrics.keys() == expected.keys()
        assert all(value.device == DEVICE and value.shape == () for value in metrics.values())
        assert {k: (v.shape, v.dtype) for k, v in latents.items()} == {
            k: (v.shape, v.dtype) for k, v in refreshed.items()
        }

"""An update whose gradients are not finite teaches nothing, and the replay takes nothing from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oneiros.platform.training.engine import open_engine
from tiny_run import tiny


def test_a_skipped_update_leaves_latents_and_priorities_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = open_engine(tiny("CartPole-v1"))
    while not engine.core.updates:
        engine.step()
    core = engine.core

    def stored() -> list[np.ndarray]:
        return [column.copy() for chunk in core.replay.chunks.values() for column in chunk.latents.columns.values()]

    signals: list[np.ndarray] = []
    monkeypatch.setattr(core.replay, "prioritise", lambda row_id, signal: signals.append(signal))
    before, written = stored(), core.replay.counters["written_back"]
    engine.agent.all_reduce = lambda grad: grad.fill_(torch.nan)
    assert core.update(1)["nonfinite"] == 1 == core.nonfinite
    assert core.replay.counters["written_back"] == written > 0 and not signals
    assert all(np.array_equal(one, other) for one, other in zip(before, stored(), strict=True))
    engine.agent.all_reduce = None
    core.update(1)
    assert core.replay.counters["written_back"] > written and core.nonfinite == 1 and len(signals) == 1
    assert not all(np.array_equal(one, other) for one, other in zip(before, stored(), strict=True))
    engine.close()

"""Whether compiling pays is decided by how long a run is."""

from __future__ import annotations

from typing import Any

import pytest
from oneiros.platform.config import RunConfig
from oneiros.platform.training.compiling import EARNED_BACK, settle_compile

BATCH: dict[str, Any] = {"batch_size": 4, "batch_length": 16}


@pytest.mark.parametrize(("updates", "expected"), [(EARNED_BACK - 1, "off"), (EARNED_BACK, "auto")])
def test_short_runs_are_not_compiled(updates: int, expected: str) -> None:
    run = RunConfig(env="CartPole-v1", env_steps=updates, train_ratio=64, hyper={**BATCH, "compile": "auto"})
    assert run.planned_updates(64) == updates
    assert settle_compile(run) == {**BATCH, "compile": expected}


@pytest.mark.parametrize("wish", ["on", "off"])
def test_a_wish_is_kept(wish: str) -> None:
    run = RunConfig(env="CartPole-v1", env_steps=1, hyper={**BATCH, "compile": wish})
    assert settle_compile(run)["compile"] == wish


def test_agents_that_know_no_compiler_are_left_alone() -> None:
    assert settle_compile(RunConfig(env="CartPole-v1", hyper=BATCH)) == BATCH

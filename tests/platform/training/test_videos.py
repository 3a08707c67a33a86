"""Filming changes nothing: a run with videos and one without are the same, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
from oneiros.platform.config import RunConfig
from oneiros.platform.training.engine import open_engine
from same_tensors import assert_same_tensors

TINY = {
    **{"size": "1m", "deter": 16, "hidden": 8, "groups": 4, "classes": 4, "units": 8, "depth": 2, "bins": 31},
    **{"batch_size": 2, "batch_length": 8, "imagination_length": 3, "warmup": 0, "learning_rate": 1e-3},
}


@pytest.mark.parametrize(
    "env, agent, hyper", [("pixel/catch", "dreamerv3", {}), ("minds/boxes", "belief", {"context": 8})]
)
def test_a_run_with_videos_learns_what_one_without_learns(env: str, agent: str, hyper: dict[str, Any]) -> None:
    values = {"env": env, "agent": agent, "engine": "local", "num_envs_per_runner": 2, "train_ratio": 1, "seed": 3}
    values |= {"learning_starts": 40, "replay": {"capacity": 2_000, "on_disk": False}, "hyper": TINY | hyper}
    plain, filmed = (open_engine(RunConfig(**values)) for _ in range(2))
    for _ in range(2):
        told, same = ({k: v for k, v in e.step().items() if not k.endswith("_per_s")} for e in (plain, filmed))
        assert told == same
        assert bool(filmed.videos()) == (agent == "dreamerv3")
    assert told["updates"] > 2
    assert_same_tensors(plain.agent.state_dict(), filmed.agent.state_dict())
    for engine in (plain, filmed):
        engine.close()

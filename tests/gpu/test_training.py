"""Training on CUDA end to end: the core of a learner and its stager, acting, checkpoints between devices, all sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.nn.capture import WARM_UP
from oneiros.platform.bench.act import measure_act
from oneiros.platform.bench.learner import Learner, LearnerSettings
from oneiros.platform.bench.operations import count_launches
from oneiros.platform.config import RunConfig
from oneiros.platform.training.engine import open_engine
from torch import Tensor

pytestmark = pytest.mark.gpu

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]
TINY = {"deter": 64, "hidden": 32, "groups": 8, "classes": 8, "units": 32, "batch_length": 16, "warmup": 10}


def settings(size: str = "1m", obs: str = "image", **changes: Any) -> LearnerSettings:
    return LearnerSettings(size=size, obs=obs, device="cuda", compile="off", batch_size=4, batch_length=16, **changes)


def test_metrics_come_late_and_all_of_them_come() -> None:
    learner = Learner(settings())
    try:
        assert learner.core.update(1) == {}, "the first update's metrics are read during the second"
        before = learner.core.replay.stats()["written_back"]
        for _ in range(WARM_UP + 4):
            metrics = learner.core.update(1)
            assert metrics["grad_norm"] > 0 and all(math.isfinite(value) for value in metrics.values()), metrics
        last = learner.core.flush()
        assert last["grad_norm"] > 0 and learner.core.flush() == {}
        written = learner.core.replay.stats()["written_back"] - before
        assert written == (WARM_UP + 5) * 4 * 16
        assert learner.core.updates == int(learner.agent.updates) == WARM_UP + 5
    finally:
        learner.close()


def test_what_is_written_back_is_what_the_update_refreshed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the next replay of the graph has overwritten its outputs by the time that they are read."""
    learner = Learner(settings())
    kept: list[dict[str, Tensor]] = []
    written: list[dict[str, Any]] = []
    update, write_back = learner.agent.update, learner.core.replay.write_back

    def remember(batch: Any) -> Any:
        metrics, latents = update(batch)
        kept.append({k: v.clone() for k, v in latents.items()})
        return metrics, latents

    def note(row_id: Any, latents: Any, *rest: Any, **more: Any) -> Any:
        written.append({k: v.copy() for k, v in latents.items()})
        return write_back(row_id, latents, *rest, **more)

    monkeypatch.setattr(learner.agent, "update", remember)
    monkeypatch.setattr(learner.core.replay, "write_back", note)
    try:
        for _ in range(WARM_UP + 5):
            learner.core.update(1)
        learner.core.flush()
        assert len(written) == len(kept)
        for found, expected in zip(written, kept, strict=True):
            for key, value in found.items():
                assert (expected[key].cpu().numpy() == value).all(), key
    finally:
        learner.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", ["1m", "12m", "50m", "200m"])
def test_every_size_trains(size: str) -> None:
    learner = Learner(settings(size))
    try:
        learner.settle()
        metrics = [learner.core.update(1) for _ in range(3)]
        assert all(math.isfinite(value) for value in metrics[-1].values()), metrics[-1]
        assert metrics[-1]["nonfinite"] == 0
    finally:
        learner.close()


def test_a_steady_update_is_two_graphs_and_few_launches() -> None:
    learner = Learner(settings())
    try:
        learner.settle()
        counts = count_launches(learner)
        assert counts["graph_launches"] == 2
        assert counts["launches"] < 60, counts
        assert counts["kernels"] == 0 or counts["kernels"] > 500, "0: the profiler sees no kernels here"
    finally:
        learner.close()


def test_acting_agrees_with_the_cpu(make_agent: Make, make_rows: MakeRows) -> None:
    here, there = make_agent("image", "cpu", role="policy"), make_agent("image", "cuda", role="policy")
    there.load_policy_state(make_agent("image", "cuda").policy_state())
    here.load_policy_state({"weights": there.weights.flat.cpu()})
    obs = {"obs": torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)}
    first = torch.ones(5, dtype=torch.bool)
    feats = []
    for agent in (here, there):
        tokens = agent.model.encoder({k: v.to(agent.device) for k, v in obs.items()}, torch.float32)
        feats.append(agent.model.rssm.post_tokens(tokens).cpu())
        action, state, latents = agent.act(obs, first, agent.initial_state(5), "eval")
        assert action["action"].shape == (5,) and latents["deter"].dtype == torch.float16
        assert all(value.device.type == agent.device.type for value in state.values())
    torch.testing.assert_close(feats[0], feats[1], rtol=1e-3, atol=1e-4)


def test_acting_is_measured() -> None:
    result = measure_act(LearnerSettings(size="1m", obs="image", device="cuda", compile="off"), 8, 64)
    assert result["median_s"] > 0


def run(run_dir: Path | None, device: str) -> RunConfig:
    return RunConfig(
        env="pixel/catch",
        env_options={"size": 16, "cells": 4},
        engine="local",
        device=device,
        seed=1,
        env_steps=400,
        num_envs_per_runner=4,
        learning_starts=100,
        random_steps=100,
        train_ratio=32,
        run_dir=run_dir,
        hyper=TINY,
    )


def test_a_run_trains_reports_saves_and_goes_on_on_either_device(tmp_path: Path) -> None:
    engine = open_engine(run(tmp_path / "gpu", "cuda"))
    while engine.env_steps < 400:
        metrics = engine.step()
    assert metrics["updates"] > WARM_UP + 1 and math.isfinite(metrics["loss/total"])
    assert metrics["train_ratio"] == pytest.approx(32, rel=0.2)
    videos = engine.videos()
    assert videos and all(video.dtype == "uint8" for video in videos.values())
    assert engine.evaluate(2, seed=0).episodes == 2
    engine.save(tmp_path / "saved")
    updates = metrics["updates"]
    engine.step()
    engine.close()
    for device in ("cuda", "cpu"):
        other = open_engine(run(tmp_path / device, device))
        other.restore(tmp_path / "saved")
        for _ in range(3):
            metrics = other.step()
        assert metrics["updates"] > updates and math.isfinite(metrics["loss/total"])
        other.save(tmp_path / f"saved-{device}")
        other.close()
    back = open_engine(run(tmp_path / "back", "cuda"))
    back.restore(tmp_path / "saved-cpu")
    assert math.isfinite(back.step()["loss/total"])
    back.close()


def test_agents_of_several_minds_train() -> None:
    config = RunConfig(env="minds/boxes", agent="belief", engine="local", device="cuda", seed=0, env_steps=600,
                       num_envs_per_runner=4, learning_starts=100, random_steps=100, train_ratio=32, hyper={
                           "size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16,
                           "batch_size": 4, "batch_length": 8})  # fmt: skip
    engine = open_engine(config)
    for _ in range(6):
        metrics = engine.step()
    assert metrics["updates"] > WARM_UP + 1 and math.isfinite(metrics["loss/total"])
    engine.close()

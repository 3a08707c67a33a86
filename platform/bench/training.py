"""Training end to end, in an environment whose steps take as long as they are told to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oneiros.platform.bench.kinds import find_kind
from oneiros.platform.bench.machine import OtherLoad, describe
from oneiros.platform.bench.null_env import NULL_ENV
from oneiros.platform.config import RunConfig, resolve
from oneiros.platform.config.layer import Layer
from oneiros.platform.training.agents import resolve_device
from oneiros.platform.training.engine import Engine, open_engine


@dataclass(frozen=True)
class TrainingSettings:
    """A short run. ``overrides`` are settings of the run by dotted name, over everything else here."""

    size: str = "1m"
    obs: str = "state"
    engine: str = "local"
    device: str = "cpu"
    env_ms: float = 0.0
    env_waits: bool = False
    runners: int = 0
    envs: int = 8
    train_ratio: float = 32.0
    vectorization: str = "sync"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def run_config(self) -> RunConfig:
        """Validated; raises ``ConfigError``."""
        find_kind(self.obs)
        values = {
            "env": NULL_ENV,
            "env_options": {"kind": self.obs, "step_ms": self.env_ms, "waits": self.env_waits},
            "engine": self.engine,
            "device": self.device,
            "num_runners": self.runners,
            "num_envs_per_runner": self.envs,
            "vectorization": self.vectorization,
            "train_ratio": self.train_ratio,
            "env_steps": 10**9,
            "hyper.size": self.size,
            "replay.capacity": 100_000,
        }
        return resolve([Layer("bench", values), Layer("--set", dict(self.overrides))]).config


def measure_training(settings: TrainingSettings, seconds: float, *, began: float | None = None) -> dict[str, Any]:
    """Env steps and updates a second over at least ``seconds`` seconds, from the first updates on.

    ``startup_s``, from ``began`` (by default now), is what came before: processes, the first chunks, the first updates.
    Raises ``ConfigError``.
    """
    began = time.perf_counter() if began is None else began
    config = settings.run_config()
    device = resolve_device(config.device)
    engine = open_engine(config)
    try:
        metrics = engine.step()
        while metrics.get("updates", 0) < 2:
            metrics = engine.step()
        startup = time.perf_counter() - began
        with OtherLoad() as others:
            measured = _run(engine, seconds, metrics)
        return {
            **measured,
            "startup_s": startup,
            "size": config.hyper.get("size"),
            "obs": settings.obs,
            "engine": config.engine,
            "env_ms": settings.env_ms,
            "env_waits": settings.env_waits,
            "runners": config.num_runners,
            "envs": config.num_envs_per_runner,
            "train_ratio": config.train_ratio,
            "overrides": dict(settings.overrides),
            "other_load": others.share,
            **describe(device),
        }
    finally:
        engine.close()


def _run(engine: Engine, seconds: float, before: Mapping[str, float]) -> dict[str, Any]:
    steps, updates = engine.env_steps, before["updates"]
    began = time.perf_counter()
    metrics = dict(before)
    while (elapsed := time.perf_counter() - began) < seconds or engine.env_steps == steps:
        metrics |= engine.step()
    elapsed = time.perf_counter() - began
    steps, updates = engine.env_steps - steps, metrics["updates"] - updates
    return {
        "env_steps_per_s": steps / elapsed,
        "updates_per_s": updates / elapsed,
        "seconds": elapsed,
        "env_steps": steps,
        "updates": int(updates),
        "actual_train_ratio": metrics.get("train_ratio"),
        "policy_age": metrics.get("policy_age"),
    }

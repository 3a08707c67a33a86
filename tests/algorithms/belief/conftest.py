"""A belief agent small enough that a test takes milliseconds, and random joint rows of three unlike agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.belief import Belief, Hyperparameters

Rows = dict[str, torch.Tensor]
NAMES = ("ann", "bob", "cat")

TINY: dict[str, Any] = {
    "size": "1m",
    "deter": 16,
    "hidden": 8,
    "classes": 4,
    "groups": 4,
    "units": 8,
    "depth": 2,
    "context": 8,
    "bins": 31,
    "batch_size": 3,
    "batch_length": 6,
    "imagination_length": 3,
}
OBS: dict[str, spaces.Space[Any]] = {
    "agent/ann/alive": spaces.Discrete(2),
    "agent/ann/obs": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "agent/bob/alive": spaces.Discrete(2),
    "agent/bob/obs": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "agent/cat/alive": spaces.Discrete(2),
    "agent/cat/seen": spaces.Discrete(4),
    "agent/cat/action_mask": spaces.MultiBinary(3),
    **{f"training/{n}/reward": spaces.Box(-np.inf, np.inf, (), np.float32) for n in NAMES},
    **{f"training/{n}/terminal": spaces.Discrete(2) for n in NAMES},
    **{f"training/{n}/belief/goal": spaces.Discrete(3) for n in NAMES},
}
ACTION: dict[str, spaces.Space[Any]] = {
    "action/ann": spaces.Discrete(5),
    "action/bob": spaces.Discrete(5),
    "action/cat": spaces.Discrete(3),
}


@pytest.fixture
def make_agent() -> Callable[..., Belief]:
    """Build a tiny agent, every parameter moved off its initial value, so that nothing is silent by construction."""

    def make(
        obs: Mapping[str, spaces.Space[Any]] = OBS,
        action: Mapping[str, spaces.Space[Any]] = ACTION,
        *,
        device: str = "cpu",
        seed: int = 0,
        role: Any = "learner",
        rough: float = 0.2,
        **overrides: Any,
    ) -> Belief:
        agent = Belief(Hyperparameters(**(TINY | overrides)), obs, action, device=device, seed=seed, role=role)
        if role == "learner" and rough:
            generator = torch.Generator().manual_seed(seed)
            agent.weights.flat.add_(torch.randn(agent.weights.flat.shape, generator=generator), alpha=rough)
        return agent

    return make


@pytest.fixture
def make_obs() -> Callable[..., Rows]:
    """Random observations ``(N, ...)`` of all agents, without what only training may know."""

    def make(batch: int = 4, seed: int = 0) -> Rows:
        rng = np.random.default_rng(seed)
        rows = {}
        for key, space in OBS.items():
            if key.startswith("training/"):
                continue
            if key.endswith("alive") or key.endswith("mask"):
                rows[key] = torch.ones(batch, *(space.shape or ()), dtype=torch.int64)
            elif isinstance(space, spaces.Discrete):
                rows[key] = torch.from_numpy(rng.integers(space.n, size=batch))
            else:
                rows[key] = torch.from_numpy(rng.normal(size=(batch, *(space.shape or ()))).astype(np.float32))
        return rows

    return make


@pytest.fixture
def make_batch(make_obs: Callable[..., Rows]) -> Callable[..., Rows]:
    """Random joint rows ``(B, L, ...)`` for an agent."""

    def make(agent: Belief, seed: int = 0) -> Rows:
        B, L = agent.config.batch_size, agent.config.batch_length + agent.config.replay_context
        rng = np.random.default_rng(seed)
        rows = {k: v.view(B, L, *v.shape[1:]) for k, v in make_obs(B * L, seed).items()}
        for key, space in OBS.items():
            if key.startswith("training/"):
                shape = (B, L)
                drawn = (
                    rng.integers(space.n, size=shape) if isinstance(space, spaces.Discrete) else rng.normal(size=shape)
                )
                rows[key] = torch.from_numpy(np.asarray(drawn))
        for name in NAMES:
            rows[f"training/{name}/terminal"] = torch.zeros(B, L, dtype=torch.int64)
        for key, space in ACTION.items():
            assert isinstance(space, spaces.Discrete)
            rows[key] = torch.from_numpy(rng.integers(space.n, size=(B, L)))
        rows["reward"] = torch.from_numpy(rng.normal(size=(B, L)).astype(np.float32))
        for flag in ("is_first", "is_last", "is_terminal"):
            rows[flag] = torch.zeros(B, L, dtype=torch.bool)
        rows["is_first"][0, 3] = rows["is_last"][0, 2] = True
        for key, field in agent.latent_fields.items():
            high = agent.model.rssm.classes if field.dtype == np.uint8 else 1
            values = torch.from_numpy(rng.integers(0, high, size=(B, L, *field.shape)))
            rows[f"latent/{key}"] = values.to(torch.uint8 if field.dtype == np.uint8 else torch.float32)
        return rows

    return make

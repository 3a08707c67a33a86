"""A DreamerV3 small enough that a test takes milliseconds, and random rows of experience to train it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters

Rows = dict[str, torch.Tensor]

TINY: dict[str, Any] = {
    "size": "1m",
    "deter": 32,
    "hidden": 8,
    "classes": 4,
    "groups": 4,
    "units": 8,
    "depth": 2,
    "imagination_length": 5,
    "precision": "float32",
    "compile": "off",
}
VECTOR = {"obs": spaces.Box(-np.inf, np.inf, (5,), np.float32)}
DISCRETE = {"action": spaces.Discrete(3)}
CONTINUOUS = {"action": spaces.Box(-1, 1, (2,), np.float32)}


@pytest.fixture
def make_agent() -> Callable[..., DreamerV3]:
    """Build a tiny agent; keyword arguments override its hyperparameters."""

    def make(
        obs: Mapping[str, spaces.Space[Any]] = VECTOR,
        action: Mapping[str, spaces.Space[Any]] = DISCRETE,
        *,
        device: str = "cpu",
        seed: int = 0,
        role: Any = "learner",
        **overrides: Any,
    ) -> DreamerV3:
        return DreamerV3(Hyperparameters(**(TINY | overrides)), obs, action, device=device, seed=seed, role=role)

    return make


@pytest.fixture
def roughen() -> Callable[..., None]:
    """Move every parameter off its initial value, so that no head is silent and no gradient zero by construction."""

    def roughen(agent: DreamerV3, scale: float = 0.2, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        agent.weights.flat.add_(torch.randn(agent.weights.flat.shape, generator=generator), alpha=scale)
        for param in agent.slow_critic.parameters():
            param.data.add_(torch.randn(param.shape, generator=generator), alpha=scale)

    return roughen


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    """Random rows ``(B, L, ...)`` for an agent, with episode ends inside and valid latents."""

    def make(agent: DreamerV3, batch: int = 3, length: int = 7, seed: int = 0, ends: bool = True) -> Rows:
        rng = np.random.default_rng(seed)
        rows = {k: sample(rng, s, (batch, length)) for k, s in (agent.obs_space | agent.action_space).items()}
        flags = {k: np.zeros((batch, length), bool) for k in ("is_first", "is_last", "is_terminal")}
        if ends:
            for b in range(batch):
                t = 1 + (b + seed) % (length - 2)
                flags["is_last"][b, t] = flags["is_first"][b, t + 1] = True
                flags["is_terminal"][b, t] = b % 2 == 0
        rows |= {k: torch.from_numpy(v) for k, v in flags.items()}
        rows["reward"] = torch.from_numpy(rng.normal(size=(batch, length)).astype(np.float32)) * 2
        rssm = agent.model.rssm
        deter = rng.uniform(-1, 1, (batch, length, rssm.deter)).astype(np.float16)
        stoch = rng.integers(rssm.classes, size=(batch, length, rssm.groups), dtype=np.uint8)
        return rows | {"latent/deter": torch.from_numpy(deter), "latent/stoch": torch.from_numpy(stoch)}

    return make


def sample(rng: np.random.Generator, space: spaces.Space[Any], lead: tuple[int, ...]) -> torch.Tensor:
    """Values of ``space`` with leading axes ``lead``, in the dtype in which replay keeps them."""
    if isinstance(space, spaces.Discrete):
        return torch.from_numpy(rng.integers(space.n, size=lead, dtype=np.int32))
    if isinstance(space, spaces.MultiDiscrete):
        return torch.from_numpy(rng.integers(space.nvec, size=(*lead, *space.shape)).astype(np.int32))
    if isinstance(space, spaces.MultiBinary):
        return torch.from_numpy(rng.integers(2, size=(*lead, *space.shape)).astype(np.int8))
    assert isinstance(space, spaces.Box)
    if space.dtype == np.uint8:
        return torch.from_numpy(rng.integers(256, size=(*lead, *space.shape), dtype=np.uint8))
    return torch.from_numpy(rng.uniform(-1, 1, (*lead, *space.shape)).astype(np.float32))

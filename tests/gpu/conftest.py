"""What only a CUDA device can show. Everything else about the GPU path is tested on mocks of CUDA elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters
from torch import Tensor

STATE = ({"obs": spaces.Box(-np.inf, np.inf, (24,), np.float32)}, {"action": spaces.Box(-1, 1, (6,), np.float32)})
IMAGE = ({"obs": spaces.Box(0, 255, (32, 32, 3), np.uint8)}, {"action": spaces.Discrete(17)})
KINDS = {"state": STATE, "image": IMAGE}
SMALL: dict[str, Any] = {
    "size": "1m",
    "deter": 256,
    "imagination_length": 5,
    "learning_rate": 1e-3,
    "warmup": 2,
    "compile": "off",
}
BATCH, LENGTH = 8, 17


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """No TF32 and nothing drawn by chance among algorithms, so that two ways of computing may be compared."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    torch._dynamo.reset()


@pytest.fixture
def make_agent() -> Callable[..., DreamerV3]:
    """Build a small agent of a kind of task on a device; keyword arguments override its hyperparameters."""

    def make(kind: str = "state", device: str = "cuda", *, role: Any = "learner", **overrides: Any) -> DreamerV3:
        agent = DreamerV3(Hyperparameters(**(SMALL | overrides)), *KINDS[kind], device=device, seed=0, role=role)
        # The choice of algorithms by trial would make two agents differ.
        torch.backends.cudnn.benchmark = False
        return agent

    return make


@pytest.fixture
def make_rows() -> Callable[..., dict[str, Tensor]]:
    """Rows of experience ``(B, L, ...)`` on an agent's device, with ends inside."""

    def make(agent: DreamerV3, seed: int, batch: int = BATCH, length: int = LENGTH) -> dict[str, Tensor]:
        rng = np.random.default_rng(seed)
        obs, action = agent.obs_space["obs"], agent.action_space["action"]
        image = obs.dtype == np.uint8
        shape = (batch, length, *(obs.shape or ()))
        rows: dict[str, Any] = {
            "obs": rng.integers(256, size=shape, dtype=np.uint8) if image else rng.normal(size=shape)
        }
        if isinstance(action, spaces.Discrete):
            rows["action"] = rng.integers(action.n, size=(batch, length))
        else:
            rows["action"] = rng.uniform(-1, 1, (batch, length, *(action.shape or ())))
        rows["reward"] = rng.normal(size=(batch, length))
        ends = rng.random((batch, length)) < 0.05
        rows |= {"is_last": ends, "is_terminal": ends, "is_first": np.roll(ends, 1, 1)}
        for key, field in agent.latent_fields.items():
            where = (batch, length, *field.shape)
            classes = rng.integers(agent.model.rssm.classes, size=where, dtype=np.uint8)
            rows[f"latent/{key}"] = classes if field.dtype == np.uint8 else rng.uniform(-1, 1, where).astype(np.float16)
        rows["latent_valid"] = rng.random(batch) < 0.9
        tensors = {key: torch.from_numpy(np.asarray(value)).to(agent.device) for key, value in rows.items()}
        return {key: value.float() if value.dtype == torch.float64 else value for key, value in tensors.items()}

    return make

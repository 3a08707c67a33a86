"""A policy whose actions tell when they were chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import Field
from oneiros.envs.spaces import flatten_action_space


class CountingPolicy:
    """Counts the steps of each environment's episode; the action and the latent are that count."""

    def __init__(self, action_space: spaces.Space[Any], scale: float = 1.0) -> None:
        self.space = flatten_action_space(action_space)
        self.scale = scale
        self.latent_fields = {"count": Field((2,), np.dtype(np.float16))}
        self.modes: list[str] = []

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {"count": torch.zeros(batch)}

    def act(self, obs: Any, is_first: Any, state: Any, mode: str = "train") -> Any:
        self.modes.append(mode)
        count = torch.where(is_first, torch.zeros_like(state["count"]), state["count"] + 1)
        actions = {}
        for key, space in self.space.items():
            lead = (len(count), *(1 for _ in space.shape or ()))
            value = count.reshape(lead).expand(len(count), *(space.shape or ()))
            if isinstance(space, spaces.Box):
                actions[key] = value * 0.1 * self.scale
            else:
                actions[key] = (value % (2 if isinstance(space, spaces.MultiBinary) else 4)).long()
        latent = torch.stack([count, -count], dim=1).to(torch.float16)
        return actions, {"count": count}, {"count": latent}

    def load_policy_state(self, tensors: Any) -> None:
        self.scale = float(tensors["scale"])

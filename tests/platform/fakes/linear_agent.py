"""A small real agent: a linear recurrent world model and a policy, enough to exercise everything around an agent.

It keeps the whole contract (latents stored and refreshed, generators in the state, several observation and action
kinds) at a cost of about a millisecond an update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import Field, Mode, SpaceDict, Tensors, UnsupportedSpace
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Setting
from torch import Tensor, nn


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Setting(16, ge=1)
    learning_rate: float = Setting(1e-3, gt=0)
    batch_size: int = Setting(4, ge=1)
    batch_length: int = Setting(8, ge=2)
    replay_context: int = Setting(1, ge=0, le=1)
    noise: float = Setting(1e-3, ge=0)
    poison_update: int = Setting(-1, description="From this update on the loss is NaN; -1: never.")


class LinearAgent:
    """``hidden' = tanh(W [hidden, action, obs])``; heads predict the next observation, the reward and the action."""

    Config = Config

    def __init__(
        self,
        config: Config,
        obs_space: SpaceDict,
        action_space: SpaceDict,
        device: str = "cpu",
        seed: int = 0,
        role: str = "learner",
    ) -> None:
        for key, space in action_space.items():
            if not isinstance(space, spaces.Discrete | spaces.Box):
                raise UnsupportedSpace(f"the action space {key!r} is {space}; this agent serves Discrete and Box")
        self.config, self.role, self.device = config, role, torch.device(device)
        self.obs_space, self.action_space = dict(obs_space), dict(action_space)
        self.obs_size = sum(_width(space) for space in self.obs_space.values())
        self.action_size = sum(_width(space) for space in self.action_space.values())
        self.latent_fields = {"hidden": Field((config.hidden,), np.dtype(np.float16))}
        self.all_reduce: Callable[[Tensor], None] | None = None
        self.generator = torch.Generator().manual_seed(seed)
        init = torch.Generator().manual_seed(seed)
        self.net = nn.ModuleDict(
            {
                "core": nn.Linear(config.hidden + self.action_size + self.obs_size, config.hidden),
                "obs": nn.Linear(config.hidden + self.action_size, self.obs_size),
                "reward": nn.Linear(config.hidden + self.action_size, 1),
                "actor": nn.Linear(config.hidden, self.action_size),
            }
        ).to(self.device)
        for parameter in self.net.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=init).to(self.device)
        self.optimiser = torch.optim.Adam(self.net.parameters(), config.learning_rate) if role == "learner" else None
        self.updates = 0

    def initial_state(self, batch: int) -> Tensors:
        return {"hidden": torch.zeros(batch, self.config.hidden), "action": torch.zeros(batch, self.action_size)}

    @torch.no_grad()
    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        hidden = self._step(state["hidden"], state["action"], self._encode(obs, self.obs_space), is_first)
        output, actions, start = self.net["actor"](hidden), {}, 0
        for key, space in self.action_space.items():
            part = output[:, start : start + _width(space)]
            start += _width(space)
            if isinstance(space, spaces.Discrete):
                chances = part.softmax(-1)
                greedy = mode == "eval"
                actions[key] = (
                    chances.argmax(-1) if greedy else torch.multinomial(chances, 1, generator=self.generator)[:, 0]
                )
            else:
                noise = 0.0 if mode == "eval" else torch.randn(part.shape, generator=self.generator)
                actions[key] = (part.tanh() + 0.3 * noise).clip(-1, 1).reshape(-1, *space.shape)
        state = {"hidden": hidden, "action": self._encode(actions, self.action_space)}
        return actions, state, {"hidden": hidden.half()}

    def load_policy_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.net.load_state_dict(dict(tensors))

    def policy_state(self) -> Tensors:
        return {key: value.detach().cpu().clone() for key, value in self.net.state_dict().items()}

    def join(self, all_reduce, all_gather):
        self.all_reduce = all_reduce

    def reseed(self, seed):
        self.generator.manual_seed(seed)

    def update(self, batch: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        assert self.optimiser is not None, "a policy-only agent cannot learn"
        obs = self._encode(batch, self.obs_space)
        action = self._encode(batch, self.action_space)
        previous = torch.cat([torch.zeros_like(action[:, :1]), action[:, :-1]], 1)
        hidden = batch["latent/hidden"][:, 0].float() * batch["latent_valid"][:, None]
        states = [hidden]
        for t in range(1, obs.shape[1]):
            hidden = self._step(hidden, previous[:, t], obs[:, t], batch["is_first"][:, t].bool())
            states.append(hidden)
        features = torch.stack(states, 1)
        noise = self.config.noise * torch.randn(features.shape, generator=self.generator)
        now = torch.cat([features + noise, action], -1)[:, :-1]
        live = 1.0 - batch["is_last"][:, :-1].float()
        obs_loss = (live * (self.net["obs"](now) - obs[:, 1:]).square().mean(-1)).mean()
        reward_loss = (live * (self.net["reward"](now)[..., 0] - batch["reward"][:, 1:]).square()).mean()
        policy_loss = (live * (self.net["actor"](features[:, :-1].detach()) - action[:, :-1]).square().mean(-1)).mean()
        loss = obs_loss + reward_loss + 0.1 * policy_loss
        if self.config.poison_update >= 0 and self.updates >= self.config.poison_update:
            loss = loss * torch.nan
        self.optimiser.zero_grad(set_to_none=False)
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None])
        if self.all_reduce is not None:
            self.all_reduce(gradients)
            start = 0
            for parameter in self.net.parameters():
                parameter.grad = gradients[start : start + parameter.numel()].view_as(parameter).clone()
                start += parameter.numel()
        finite = bool(gradients.isfinite().all())
        if finite:
            self.optimiser.step()
        self.updates += 1
        metrics = {
            "loss": loss.detach(),
            "loss/obs": obs_loss.detach(),
            "loss/reward": reward_loss.detach(),
            "nonfinite": torch.tensor(0.0 if finite else 1.0),
        }
        return metrics, {"hidden": features[:, self.config.replay_context :].detach().half()}

    @torch.no_grad()
    def report(self, batch: Mapping[str, Tensor]) -> Tensors:
        result: Tensors = {"report/reward_mean": batch["reward"].mean()}
        for key, space in self.obs_space.items():
            if isinstance(space, spaces.Box) and len(space.shape) == 3:
                truth = batch[key][0, self.config.replay_context :]
                result[f"openloop/{key}"] = torch.cat([truth, truth, torch.zeros_like(truth)], 2)
        return result

    def state_dict(self) -> Tensors:
        state: Tensors = {f"net/{key}": value.detach().clone() for key, value in self.net.state_dict().items()}
        state["generator"] = self.generator.get_state()
        state["updates"] = torch.tensor(self.updates)
        if self.optimiser is not None:
            for index, entry in self.optimiser.state_dict()["state"].items():
                state |= {f"optimiser/{index}/{key}": value.clone() for key, value in entry.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        own = self.state_dict()
        for key, value in own.items():
            if not key.startswith("optimiser/") and (key not in state or state[key].shape != value.shape):
                found = tuple(state[key].shape) if key in state else "nothing"
                raise ValueError(f"{key} has shape {tuple(value.shape)} here and {found} in the state")
        self.net.load_state_dict({key[4:]: value for key, value in state.items() if key.startswith("net/")})
        self.generator.set_state(state["generator"])
        self.updates = int(state["updates"])
        if self.optimiser is not None:
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith("optimiser/"):
                    _, index, name = key.split("/")
                    entries.setdefault(int(index), {})[name] = value.clone()
            self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": entries})

    def _step(self, hidden: Tensor, action: Tensor, obs: Tensor, is_first: Tensor) -> Tensor:
        keep = (~is_first.bool()).float()[:, None]
        return torch.tanh(self.net["core"](torch.cat([hidden * keep, action * keep, obs], -1)))

    def _encode(self, values: Mapping[str, Tensor], space_dict: SpaceDict) -> Tensor:
        """``(..., *shape)`` of every key to ``(..., width)``."""
        parts = []
        for key, space in space_dict.items():
            value = values[key]
            if isinstance(space, spaces.Discrete):
                parts.append(nn.functional.one_hot(value.long(), int(space.n)).float())
            else:
                scale = 255.0 if getattr(space, "dtype", None) == np.uint8 else 1.0
                lead = value.shape[: value.ndim - len(space.shape or ())]
                parts.append(value.float().reshape(*lead, -1).clip(-10 * scale, 10 * scale) / scale)
        return torch.cat(parts, -1)


def _width(space: spaces.Space[Any]) -> int:
    return int(space.n) if isinstance(space, spaces.Discrete) else prod(space.shape or ())

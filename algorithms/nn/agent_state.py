"""What an agent of world model, actor and critic keeps of itself: for acting elsewhere, and for going on exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from oneiros.algorithms.contract import Tensors
from oneiros.algorithms.nn.laprop import LaProp
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn


class AgentState:
    """The saving and restoring half of an agent; whoever inherits builds the attributes.

    ``weights`` begins with the ``policy_size`` numbers that acting needs.
    """

    model: nn.Module
    actor: nn.Module
    critic: nn.Module
    slow_critic: nn.Module
    weights: Weights
    policy_size: int
    optimiser: LaProp
    return_scale: nn.Module
    updates: Tensor
    generator: torch.Generator
    act_generator: torch.Generator

    def policy_state(self) -> Tensors:
        """The weights that acting needs, as one float32 vector on the CPU."""
        return {"weights": self.weights.flat[: self.policy_size].detach().cpu().clone()}

    @torch.no_grad()
    def load_policy_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what ``policy_state`` returned; raises ``ValueError`` if it is of another policy."""
        flat = tensors["weights"]
        if flat.numel() != self.policy_size:
            raise ValueError(
                f"These policy weights have {flat.numel()} numbers, but this policy has {self.policy_size}."
            )
        self.weights.flat[: self.policy_size].copy_(flat)

    def state_dict(self) -> Tensors:
        """Everything that training needs to go on exactly, as copies on the CPU."""
        state = {k: v.detach().cpu().clone() for k, v in self._named().items()}
        state["updates"] = self.updates.clone()
        state["generator/update"] = self.generator.get_state()
        state["generator/act"] = self.act_generator.get_state()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore ``state_dict``'s tensors in place; raises ``ValueError`` naming the first that does not fit."""
        named = self._named()
        for name in ("updates", "generator/update", "generator/act"):
            if name not in state:
                raise ValueError(f"The checkpoint has no '{name}', so it is not one of {type(self).__name__}'s.")
        for name, tensor in named.items():
            if name not in state:
                raise ValueError(f"The checkpoint has no '{name}', so it is of another model.")
            if state[name].shape != tensor.shape:
                found, own = tuple(state[name].shape), tuple(tensor.shape)
                raise ValueError(f"'{name}' has shape {found} in the checkpoint but {own} in this model.")
        for name, tensor in named.items():
            tensor.copy_(state[name])
        self.updates.copy_(state["updates"])
        self.generator.set_state(state["generator/update"].cpu())
        self.act_generator.set_state(state["generator/act"].cpu())

    def _named(self) -> dict[str, Tensor]:
        modules = {"model": self.model, "actor": self.actor, "critic": self.critic, "slow_critic": self.slow_critic}
        named = {f"{m}/{k}": p.data for m, module in modules.items() for k, p in module.named_parameters()}
        named |= {f"optimiser/{k}": v for k, v in self.optimiser.state_dict().items()}
        named |= {f"return_scale/{k}": getattr(self.return_scale, k) for k in ("low", "high")}
        return named

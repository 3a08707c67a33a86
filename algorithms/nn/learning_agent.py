"""What agents of world model, actor and critic have in common beside their losses: the step, and saving it all."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from oneiros.algorithms.contract import Tensors
from oneiros.algorithms.nn.allocator import keep_freed_memory
from oneiros.algorithms.nn.capture import Captured
from oneiros.algorithms.nn.laprop import LaProp
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn


class LearningAgent(ABC):
    """An agent without its loss; whoever inherits builds the attributes, then calls ``prepare_learning``.

    ``weights`` begins with the ``policy_size`` numbers that acting needs.
    """

    model: nn.Module
    actor: nn.Module
    critic: nn.Module
    slow_critic: nn.Module
    device: torch.device
    weights: Weights
    slow_weights: Weights
    policy_size: int
    return_scale: nn.Module
    act_generator: torch.Generator
    batch_keys: tuple[str, ...]
    """What ``prepare`` may read of a batch."""

    def prepare_learning(self, config: Any, seed: int) -> None:
        """Set up what a learner has beyond its weights: optimiser, noise, counter, and its tie to other learners.

        ``config`` has the fields of DreamerV3's ``Hyperparameters`` that say how to optimise.
        """
        if self.device.type == "cpu":
            keep_freed_memory()
        self.critic_params: list[Tensor] = list(self.critic.parameters())
        self.slow_rate: float = config.slow_rate
        names = ("warmup", "anneal", "clip", "beta1", "beta2", "eps")
        options = {name: getattr(config, name) for name in names}
        self.optimiser = LaProp(self.weights, config.learning_rate, **options)
        self.generator = torch.Generator(self.device).manual_seed(seed + 2)
        self.updates = torch.zeros((), dtype=torch.int64)
        self.all_reduce: Callable[[Tensor], None] | None = None
        """Averages a tensor over all learners in place; see ``join``."""
        self.all_gather: Callable[[Tensor], Tensor] | None = None
        """Concatenates a tensor of all learners; see ``join``."""
        self._backward: Callable[[Tensors], tuple[Tensors, Tensors]] = self.backward
        self._step: Callable[[Tensors], Tensors] = self.step
        if self.device.type == "cuda":
            # Shapes stay the same: convolutions are tried out once, in the calls before capturing.
            torch.backends.cudnn.benchmark = True
            if config.cuda_graph:
                self.capture()

    @abstractmethod
    def prepare(self, batch: Mapping[str, Tensor]) -> Tensors:
        """Split a batch ``(B, context + T, ...)`` into what ``loss`` reads, time first."""

    @abstractmethod
    def loss(self, rows: Tensors) -> tuple[Tensor, Tensors, Tensors]:
        """The whole loss ``()`` of prepared rows, the refreshed latents ``(B, T, ...)`` and metrics."""

    def capture(self) -> None:
        """Record the update as two CUDA graphs, between which several learners average their gradients."""
        self._backward = Captured(self.backward, [self.generator], self.device)
        self._step = Captured(self.step, [], self.device)

    def update(self, batch: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """See ``contract.Agent``: everything that is learnt, in one optimiser step."""
        inputs = {k: batch[k] for k in self.batch_keys if k in batch}
        metrics, latents = self._backward(inputs)
        if self.all_reduce is not None:
            self.all_reduce(self.weights.grad)
        metrics = {**metrics, **self._step({})}
        self.updates += 1
        return metrics, latents

    def backward(self, batch: Tensors) -> tuple[Tensors, Tensors]:
        """Metrics and refreshed latents of a batch, its gradients added to ``weights.grad``."""
        self.weights.refresh()
        self.slow_weights.refresh()
        loss, latents, metrics = self.loss(self.prepare(batch))
        loss.backward()
        return metrics, latents

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave training as it was before: what is looked at meanwhile moves neither its noise nor its return scale."""
        noise = self.generator.get_state()
        scale = {k: v.clone() for k, v in self.return_scale.state_dict().items()}
        try:
            yield
        finally:
            self.generator.set_state(noise)
            self.return_scale.load_state_dict(scale)

    def join(self, all_reduce: Callable[[Tensor], None], all_gather: Callable[[Tensor], Tensor]) -> None:
        """See ``contract.DistributedAgent``."""
        self.all_reduce, self.all_gather = all_reduce, all_gather

    def reseed(self, seed: int) -> None:
        """See ``contract.DistributedAgent``."""
        self.generator.manual_seed(seed)

    @torch.no_grad()
    def step(self, _: Tensors) -> Tensors:
        """Take the optimiser's step and let the slow critic follow."""
        metrics = self.optimiser.step()
        torch._foreach_lerp_(self.slow_weights.params, self.critic_params, self.slow_rate)
        return metrics

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
        restore_noise(self.generator, state["generator/update"].cpu())
        restore_noise(self.act_generator, state["generator/act"].cpu())

    def _named(self) -> dict[str, Tensor]:
        modules = {"model": self.model, "actor": self.actor, "critic": self.critic, "slow_critic": self.slow_critic}
        named = {f"{m}/{k}": p.data for m, module in modules.items() for k, p in module.named_parameters()}
        named |= {f"optimiser/{k}": v for k, v in self.optimiser.state_dict().items()}
        named |= {f"return_scale/{k}": getattr(self.return_scale, k) for k in ("low", "high")}
        return named


def restore_noise(generator: torch.Generator, state: Tensor) -> None:
    """Have ``generator`` go on from ``state``; that of another kind of device becomes the seed of other noise.

    A generator's state is 16 bytes on CUDA and 5,056 on the CPU, and neither can draw what the other would have.
    """
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
    else:
        digest = hashlib.sha256(state.numpy().tobytes()).digest()
        generator.manual_seed(int.from_bytes(digest[:7], "big"))

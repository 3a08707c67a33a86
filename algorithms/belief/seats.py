"""Who the agents are, and what each of them sees, does and would like to know, read off a joint row's spaces.

All agents go through the same weights as one batch, whatever their spaces: each distinct space has columns of its own
in one wide vector, agents of the same space share them, and an agent's other columns are zero.

``G`` is the number of agents, ``N`` rows, ``W`` observation columns, ``A`` action columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import SpaceDict, Tensors, UnsupportedSpace
from oneiros.algorithms.dreamerv3.encoder_decoder import (
    check_observation,
    class_counts,
    is_image,
    one_hots,
    vector_width,
)
from oneiros.algorithms.nn.distributions import symlog
from torch import Tensor
from torch.nn import functional as F

ALIVE, TURN, MASK = "alive", "turn", "action_mask"


@dataclass(frozen=True)
class Component:
    """One discrete component: its columns, and which agents have it ``(G,)``; ``owners`` says so to Python."""

    start: int
    count: int
    owned: Tensor
    owners: tuple[bool, ...]

    @property
    def columns(self) -> slice:
        """Where it lies."""
        return slice(self.start, self.start + self.count)


class Columns:
    """The entries of all agents in ``width`` columns: discrete ones as one-hots first, then continuous ones.

    ``own``: the spaces of each agent, by key. ``components`` are the discrete ones; ``continuous`` ``(G, C)`` says
    which of the last ``C`` columns are an agent's.
    """

    def __init__(self, own: Mapping[str, SpaceDict]) -> None:
        self.names = tuple(own)
        self.own = {name: dict(sorted(entries.items())) for name, entries in own.items()}
        kinds: list[dict[str, spaces.Space[Any]]] = []
        self.kind = {}
        for name, entries in self.own.items():
            if entries not in kinds:
                kinds.append(entries)
            self.kind[name] = kinds.index(entries)
        has = torch.tensor([[self.kind[name] == k for k in range(len(kinds))] for name in self.names])
        self.components: list[Component] = []
        self.places: list[dict[str, slice]] = [{} for _ in kinds]
        at = 0
        for k, entries in enumerate(kinds):
            for key, space in entries.items():
                if counts := class_counts(space):
                    self.places[k][key] = slice(at, at + sum(counts))
                    for count in counts:
                        self.components.append(Component(at, count, has[:, k], tuple(has[:, k].tolist())))
                        at += count
        self.discrete = at
        for k, entries in enumerate(kinds):
            for key, space in entries.items():
                if not class_counts(space):
                    self.places[k][key] = slice(at, at + vector_width(space))
                    at += vector_width(space)
        self.width = at
        self.owned = torch.zeros(len(self.names), at, dtype=torch.bool)
        for g, name in enumerate(self.names):
            for place in self.places[self.kind[name]].values():
                self.owned[g, place] = True
        self.continuous = self.owned[:, self.discrete :]

    def pack(self, entries: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Tensor:
        """Every agent's entries ``(N, ...)`` as ``(N, G, width)``."""
        first = next(value for own in entries.values() for value in own.values())
        out = torch.zeros(first.shape[0], len(self.names), self.width, device=device)
        for g, name in enumerate(self.names):
            for key, place in self.places[self.kind[name]].items():
                value = entries[name][key].to(device)
                counts = class_counts(self.own[name][key])
                out[:, g, place] = one_hots(value, counts) if counts else value.float().reshape(len(value), -1)
        return out

    def to(self, device: torch.device) -> Columns:
        """Move the masks to ``device``."""
        self.owned, self.continuous = self.owned.to(device), self.continuous.to(device)
        self.components = [Component(c.start, c.count, c.owned.to(device), c.owners) for c in self.components]
        return self

    def discrete_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy ``(..., G)`` of logits with target probabilities, both ``(..., G, width)``, in nats."""
        total = torch.zeros_like(logits[..., 0])
        for c in self.components:
            total = total - (target[..., c.columns] * torch.log_softmax(logits[..., c.columns], -1)).sum(-1) * c.owned
        return total

    def losses(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Cross-entropies and squared errors ``(..., G)``, summed over the columns that an agent has."""
        error = (predicted[..., self.discrete :] - target[..., self.discrete :]).square() * self.continuous
        return self.discrete_losses(predicted, target) + error.sum(-1)

    def probs(self, logits: Tensor) -> Tensor:
        """Logits ``(..., G, width)`` as probabilities, continuous columns as they are, columns of others as zeros."""
        parts = [torch.softmax(logits[..., c.columns], -1) * c.owned[..., None] for c in self.components]
        return torch.cat([*parts, logits[..., self.discrete :] * self.continuous], -1)


class ActionColumns(Columns):
    """The actions of all agents, keyed by what follows ``action/<name>``, so that agents of one kind share columns."""

    def __init__(self, own: Mapping[str, SpaceDict]) -> None:
        for name, entries in own.items():
            for key, space in entries.items():
                if not class_counts(space) and not (isinstance(space, spaces.Box) and space.dtype == np.float32):
                    raise UnsupportedSpace(
                        f"The action {key!r} of {name} is {space}, which the belief agent cannot produce; it serves "
                        "Discrete, MultiDiscrete and Box actions, and Dicts of these."
                    )
        super().__init__(own)

    def flatten(self, actions: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """Joint actions by key, ``(N, ...)`` each, as ``(N, G, A)``."""
        return self.pack({n: {k: actions[f"action/{n}{k}"] for k in own} for n, own in self.own.items()}, device)

    def unflatten(self, flat: Tensor) -> Tensors:
        """Flat actions ``(N, G, A)`` as joint actions by key: int64 classes, float32 values in [-1, 1]."""
        action: Tensors = {}
        for g, name in enumerate(self.names):
            for key, space in self.own[name].items():
                part = flat[:, g, self.places[self.kind[name]][key]]
                shape = (-1, *(space.shape or ()))
                if counts := class_counts(space):
                    chosen = torch.stack([p.argmax(-1) for p in part.split(counts, -1)], -1)
                    action[f"action/{name}{key}"] = chosen.reshape(shape)
                else:
                    action[f"action/{name}{key}"] = part.clamp(-1, 1).reshape(shape)
        return action


class Seats:
    """The agents of an environment of joint rows.

    Attributes: ``names`` ``(G,)``; ``vectors``, ``actions`` and ``targets``, the columns of what they see, do and would
    like to know; ``image``, the space of the image that those in ``sighted`` ``(G,)`` see, if any; ``turns`` and
    ``masks``, whether agents act one after another, and under masks.

    Raises ``UnsupportedSpace`` where the spaces are not those of joint rows, or cannot be served.
    """

    def __init__(self, obs_space: SpaceDict, action_space: SpaceDict) -> None:
        seen: dict[str, dict[str, spaces.Space[Any]]] = {}
        for key, space in obs_space.items():
            room, _, rest = key.partition("/")
            if room == "agent":
                name, _, entry = rest.partition("/")
                seen.setdefault(name, {})[entry] = space
        self.names = tuple(seen)
        if not self.names:
            raise UnsupportedSpace(
                "The belief agent needs an environment of several agents (observations 'agent/<name>/...'); this one "
                f"has the observations {', '.join(obs_space)}: choose dreamerv3 for it."
            )
        self.obs_space = seen
        self.turns = any(TURN in entries for entries in seen.values())
        self.masked = {name: MASK in entries for name, entries in seen.items()}
        self.masks = any(self.masked.values())
        own_actions: dict[str, dict[str, spaces.Space[Any]]] = {name: {} for name in self.names}
        for key, space in action_space.items():
            name = key.split("/")[1] if "/" in key else ""
            if name not in own_actions:
                raise UnsupportedSpace(f"The action {key!r} is of no agent; there are {', '.join(self.names)}.")
            own_actions[name][key] = space
        self._relative = {n: {k.removeprefix(f"action/{n}"): s for k, s in e.items()} for n, e in own_actions.items()}
        self.actions = ActionColumns(self._relative)
        self._check_masks()
        vectors, images = {}, {}
        for name, entries in seen.items():
            own = {key: space for key, space in entries.items() if key not in (ALIVE, TURN, MASK)}
            for key, space in own.items():
                check_observation(f"agent/{name}/{key}", space)
            images[name] = [(key, space) for key, space in own.items() if is_image(space)]
            vectors[name] = {key: space for key, space in own.items() if not is_image(space)}
        self.vectors = Columns(vectors)
        self._find_image(images)
        self.targets = self._find_targets(obs_space)

    def _find_image(self, images: Mapping[str, list[tuple[str, spaces.Space[Any]]]]) -> None:
        shapes = {space.shape for found in images.values() for _, space in found}
        if len(shapes) > 1 or any(len(found) > 1 for found in images.values()):
            raise UnsupportedSpace(
                "The belief agent serves one image an agent, of the same shape for all that see one; here they are "
                f"{', '.join(str(shape) for shape in sorted(map(str, shapes)))}: choose one size for all of them."
            )
        self.image_key = {name: found[0][0] for name, found in images.items() if found}
        self.image = next((found[0][1] for found in images.values() if found), None)
        self.sighted = torch.tensor([name in self.image_key for name in self.names])

    def _find_targets(self, obs_space: SpaceDict) -> Columns | None:
        targets: dict[str, dict[str, spaces.Space[Any]]] = {name: {} for name in self.names}
        for name in self.names:
            prefix = f"training/{name}/belief/"
            for key, space in obs_space.items():
                if key.startswith(prefix):
                    if not class_counts(space):
                        raise UnsupportedSpace(f"The belief target {key!r} is {space}; targets are discrete.")
                    targets[name][key.removeprefix(prefix)] = space
        return Columns(targets) if any(targets.values()) else None

    def _check_masks(self) -> None:
        for name, masked in self.masked.items():
            counts = [n for space in self._relative[name].values() for n in class_counts(space)]
            if masked and counts != [int(np.prod(self.obs_space[name][MASK].shape or ()))]:
                raise UnsupportedSpace(f"The '{MASK}' of {name} fits no single Discrete action; it has {counts}.")

    def to(self, device: torch.device) -> Seats:
        """Move all masks to ``device``."""
        for columns in (self.vectors, self.actions, self.targets):
            if columns is not None:
                columns.to(device)
        self.sighted = self.sighted.to(device)
        return self

    # ---- rows --------------------------------------------------------------------------------------------------------

    def see(self, obs: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """What each agent sees, ``(N, G, W)``; continuous values symlog.

        The decoder's targets are just so; the encoder squashes vectors once more, and learns from what it then gets.
        """
        entries = {n: {k: obs[f"agent/{n}/{k}"] for k in self.vectors.own[n]} for n in self.names}
        if self.vectors.width == 0:
            return torch.zeros(len(next(iter(obs.values()))), len(self.names), 0, device=device)
        packed = self.vectors.pack(entries, device)
        d = self.vectors.discrete
        return torch.cat([packed[..., :d], symlog(packed[..., d:])], -1)

    def images(self, obs: Mapping[str, Tensor], device: torch.device) -> Tensor | None:
        """The image of each agent, ``(N, G, height, width, C)``; black for those that see none."""
        if self.image is None:
            return None
        rows = len(next(iter(obs.values())))
        black = torch.zeros(rows, *(self.image.shape or ()), dtype=torch.uint8, device=device)
        found = [obs[f"agent/{n}/{self.image_key[n]}"].to(device) if n in self.image_key else black for n in self.names]
        return torch.stack(found, 1)

    def flag(self, obs: Mapping[str, Tensor], key: str, device: torch.device) -> Tensor:
        """A flag of each agent, float ``(N, G)``."""
        return torch.stack([obs[f"agent/{n}/{key}"].to(device).float() for n in self.names], 1)

    def acting(self, obs: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """Whose actions count: float ``(N, G)``."""
        alive = self.flag(obs, ALIVE, device)
        return alive * self.flag(obs, TURN, device) if self.turns else alive

    def legal(self, obs: Mapping[str, Tensor], device: torch.device) -> Tensor | None:
        """Which discrete action columns are legal: float ``(N, G, D)``, or None where no agent has a mask."""
        if not self.masks:
            return None
        rows = len(next(iter(obs.values())))
        legal = torch.ones(rows, len(self.names), self.actions.discrete, device=device)
        for g, name in enumerate(self.names):
            if self.masked[name]:
                place = next(iter(self.actions.places[self.actions.kind[name]].values()))
                legal[:, g, place] = obs[f"agent/{name}/{MASK}"].to(device).float()
        return legal

    def flatten_action(self, action: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """Joint actions by key as ``(N, G, A)``."""
        return self.actions.flatten(action, device)

    @property
    def shares_targets(self) -> bool:
        """Whether two agents would like to know the same."""
        return self.targets is not None and any(sum(c.owners) > 1 for c in self.targets.components)

    def truth(self, rows: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """The true values of all targets as one-hots ``(N, G, targets)``."""
        assert self.targets is not None
        entries = {n: {k: rows[f"training/{n}/belief/{k}"] for k in self.targets.own[n]} for n in self.names}
        return self.targets.pack(entries, device)

    def training(self, rows: Mapping[str, Tensor], key: str, device: torch.device) -> Tensor:
        """A training-only number of each agent, float ``(N, G)``."""
        return torch.stack([rows[f"training/{n}/{key}"].to(device).float() for n in self.names], 1)


def one_hot_ids(agents: int, device: torch.device) -> Tensor:
    """What tells the agents apart, ``(G, G)``."""
    return F.one_hot(torch.arange(agents, device=device), agents).float()

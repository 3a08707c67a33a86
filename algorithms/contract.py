"""What an agent and a world model are, to everything else in Oneiros.

Shapes in this file: ``N`` environments stepped together, ``B`` sequences of ``T`` steps, ``H`` imagined steps.

One **row** of experience holds everything that is known about time ``t`` of one environment:

- the observation keys of ``obs_space`` (a bare observation has the key ``"obs"``),
- ``reward`` (float32): what arriving at this observation paid; 0 on the first row of an episode,
- ``is_first``: the row begins an episode; ``is_last``: it ends one; ``is_terminal``: it ends one because the
  environment terminated, not because time ran out,
- the action keys (``"action"``, or ``"action/<key>"`` for a Dict space): what was executed *after* seeing the
  observation; zeros on a row with ``is_last``,
- ``latent/<key>``: what the agent asked to be kept with the step (``Agent.latent_fields``), and ``latent_valid``:
  whether it could know, which it cannot in an episode whose first steps were taken at random, without asking it,
- ``training/<key>``: what only training may read, such as hidden goals. Rows have it; ``Policy.act`` never gets it, and
  an agent class is told of it in its ``obs_space`` only if it says ``READS_TRAINING_ONLY = True``.

An environment of several agents is one environment of **joint rows**: ``agent/<name>/<key>`` is what one of them
sees, ``training/<name>/<key>`` what only training may know of it, ``action/<name>`` what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

SpaceDict = Mapping[str, spaces.Space[Any]]
"""Flat: keys are paths (``"camera/left"``), values are Box, Discrete, MultiDiscrete or MultiBinary. Box actions are
normalised to [-1, 1] before an agent sees them."""

SIGNAL = "signal"
"""Among the latents that an update returns: how much each sequence taught."""
LATENT_VALID = "latent_valid"
"""Whether a row's latents are the agent's; of a batch, ``(B,)``: whether those of each sequence's first row are."""
TRAINING_ONLY = "training/"
"""How the keys begin that acting code is never given."""

Tensors = dict[str, Tensor]
Mode = Literal["train", "eval"]


@dataclass(frozen=True)
class Field:
    """One entry of a row: its shape without leading axes, and the dtype it is stored in."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class UnsupportedSpace(ValueError):
    """An observation or action space that this algorithm cannot serve; the message names it and the choices."""


@runtime_checkable
class Policy(Protocol):
    """What stepping environments takes: it acts, and its recurrent state is carried by whoever asks it."""

    latent_fields: Mapping[str, Field]
    """What ``act`` returns to be stored with each row, without the ``latent/`` prefix."""

    def initial_state(self, batch: int) -> Tensors:
        """The recurrent state before the first step, each entry ``(N, ...)``."""

    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        """Choose actions for ``N`` environments.

        ``obs`` entries are ``(N, ...)`` in the space's dtype, ``is_first`` is ``(N,)`` bool. Returns the action
        (``"action"`` or ``"action/<key>"``, ``(N, ...)``: int64 for discrete spaces, float32 in [-1, 1] for boxes),
        the next recurrent state, and the latents to store with this row. The state remembers the action just
        returned, so a caller passes it back unchanged.
        """


@runtime_checkable
class ExplicitPolicy(Policy, Protocol):
    """A policy that can also say its step without random generators, so that it can be exported as a graph."""

    def step_module(self) -> tuple[nn.Module, Mapping[str, Field]]:
        """Return a module that acts as ``act`` does, with noise as an input, and the fields of that noise.

        ``module(obs, is_first, state, noise, explore)`` returns the action and the next state. ``explore`` ``(N,)``
        bool is true where the action is sampled. A noise key begins with its distribution: ``uniform/`` on [0, 1) or
        ``normal/``.
        """


@runtime_checkable
class Agent(Policy, Protocol):
    """Learns behaviour from sequences of rows.

    Constructed as ``AgentClass(config, obs_space, action_space, device="cpu", seed=0, role="learner")``;
    ``role="policy"`` builds only what ``act`` needs.
    """

    def update(self, batch: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Take one optimiser step on ``(B, T + context, ...)`` rows.

        Returns metrics (scalars that stay on the device: reading one waits for the update) and the refreshed
        latents, ``(B, T, ...)`` in the stored dtypes, to be written back over the rows ``[:, context:]``. Among the
        latents may be ``SIGNAL`` ``(B,)``: how much each sequence taught, for replay that prefers such sequences.
        """

    def report(self, batch: Mapping[str, Tensor]) -> Tensors:
        """Open-loop predictions of ``(B, T + context, ...)`` rows.

        For every image key ``k``, ``"openloop/k"`` is a uint8 video ``(T, height, width, 3)`` of truth, model and
        error; scalars measure the prediction error. ``state_dict`` is the same afterwards.
        """

    def policy_state(self) -> Tensors:
        """The weights that acting needs, on the CPU."""

    def load_policy_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights that ``policy_state`` returned, in this or another process."""

    def state_dict(self) -> Tensors:
        """Everything that training needs to go on exactly: parameters, optimiser, normalisers, counters, generators.

        The first word of a key, up to a ``/``, is its part. ``optimiser``, ``generator`` and ``updates`` are of one
        training; the others are what was learnt, which fine-tuning takes over part by part. A class attribute
        ``PARTS``, names to tuples of beginnings of keys, may name other parts.
        """

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned; raises ``ValueError`` naming the first entry that does not fit."""


@runtime_checkable
class DistributedAgent(Agent, Protocol):
    """An agent that several learners may train, each with a copy of it and rows of its own."""

    def join(self, all_reduce: Callable[[Tensor], None], all_gather: Callable[[Tensor], Tensor]) -> None:
        """Train together with the other learners' copies from now on.

        ``all_reduce`` averages a tensor over all of them in place: gradients, before the optimiser's step, so that
        copies stay equal. ``all_gather`` concatenates everybody's tensor along the first axis: what statistics of the
        whole batch, such as a return scale, are made of.
        """

    def reseed(self, seed: int) -> None:
        """Draw other noise from now on: copies must not all draw the same."""


class WorldModel(Protocol):
    """Predicts: what planners, dream environments and whoever evaluates a model may ask of it, and no more.

    DreamerV3's model does so. Nothing in this project plans or plays in one yet; agents imagine in their own terms.
    """

    def observe(
        self, obs: Mapping[str, Tensor], action: Mapping[str, Tensor], is_first: Tensor, state: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Filter real sequences: ``(B, T, ...)`` observations and the actions that *preceded* them.

        Returns the last state ``(B, ...)`` and the latents ``(B, T, ...)``.
        """

    def imagine(self, state: Tensors, action: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Roll ``(B, ...)`` latents forward under given actions ``(B, H, ...)``; returns as ``observe`` does."""

    def predict(self, latents: Tensors) -> Tensors:
        """Decode latents ``(..., )`` to observations, ``"reward"`` and ``"continue"`` (a probability)."""

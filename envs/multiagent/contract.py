"""What an environment of several agents is to everything else in Oneiros.

It is a ``gymnasium.Env`` of **joint steps**: one action holds every agent's, one observation what every agent sees, so
one row of experience is one joint step and the agents are aligned wherever rows go. Its observation is a Dict of

- ``agent/<name>/...``: what this agent sees (``obs``, or the entries of its own Dict), ``alive`` (0 before it joins
  and after its last observation: its other entries are then blank), ``turn`` where agents act one after another (1: its
  action counts), ``action_mask`` where it has one,
- ``training/<name>/...``: what only training may read. ``reward`` is the agent's own, ``terminal`` whether this is its
  last observation because it terminated, ``belief/<target>`` what it would like to know, ``oracle/<target>`` the
  probabilities that perfect inference gives it. Whoever acts for a policy leaves every entry under ``training/`` out,
  so that no code that acts can reach it,

and its action a Dict with one entry an agent. Its reward is the team's: the mean of the agents' own.

A PettingZoo ``ParallelEnv`` or ``AECEnv`` becomes one through ``joint``. Beyond PettingZoo's interface it may offer
``belief_spaces`` and ``beliefs``, ``oracle_spaces`` and ``oracles`` (``Declares``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

AGENT = "agent"
TRAINING = "training"
"""The entry of an observation whose content acting code is never given."""

AnySpace = spaces.Space[Any]
Actions = Mapping[str, Any]


@runtime_checkable
class Declares(Protocol):
    """A PettingZoo environment that says what its agents would like to know."""

    belief_spaces: Mapping[str, Mapping[str, AnySpace]]
    """For each agent, a Discrete or MultiDiscrete space for each target."""

    def beliefs(self, agent: str) -> Mapping[str, NDArray[np.int64] | int]:
        """The true values of the targets of ``agent`` now."""


@runtime_checkable
class KnowsOracle(Protocol):
    """A PettingZoo environment that can say what perfect inference would know."""

    oracle_spaces: Mapping[str, Mapping[str, AnySpace]]
    """For each agent, a Box of probabilities ``(parts, classes)`` for some of its targets."""

    def oracles(self, agent: str) -> Mapping[str, NDArray[np.float32]]:
        """The exact posterior of ``agent`` over its targets, given what it has seen."""


class Players(Protocol):
    """The agents of one environment, however it steps them; what ``JointEnv`` is built on."""

    names: tuple[str, ...]
    observation_spaces: Mapping[str, AnySpace]
    action_spaces: Mapping[str, AnySpace]
    turn_based: bool
    env: Any
    """The environment underneath."""

    observations: Mapping[str, Any]
    """What each agent that is there sees after the last joint step; on its last, an agent is there still."""
    terminal: frozenset[str]
    """Agents whose last observation this is, and that were not only out of time."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Begin an episode."""

    def step(self, actions: Actions) -> Mapping[str, float]:
        """Execute the actions of those whose turn it is; the agents' own rewards."""

    def turn(self, name: str) -> bool:
        """Whether the next joint step executes the action of ``name``."""

    def ended(self) -> tuple[bool, bool]:
        """Whether the episode has terminated, and whether it was truncated."""

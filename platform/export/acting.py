"""An exported policy that acts: observations and actions as the environment has them, the state in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.algorithms.contract import TRAINING_ONLY, Mode, Policy
from oneiros.envs.spaces import ActionCodec, Leaf, ObservationCodec
from oneiros.platform.checkpoint import Manifest, open_checkpoint
from oneiros.platform.training.agents import AgentName
from oneiros.platform.training.policy_file import load_policy, policy_spaces

Array = NDArray[Any]
State = dict[str, Array]
"""The recurrent state of ``N`` environments: each entry ``(N, ...)``."""


class ExportedPolicy:
    """Acts for any number of environments at once, and keeps nothing between two calls but its random generator.

    ::

        policy = load(Path("policy"))
        action, state = policy.step(observation)         # the first of an episode
        action, state = policy.step(observation, state)  # and so on
    """

    def __init__(self, policy: Policy, manifest: Manifest, device: str = "cpu") -> None:
        self.policy = policy
        self.manifest = manifest
        observation_space, self.action_space = policy_spaces(manifest)
        self.observation_space = seen_in_acting(observation_space)
        self.observations = ObservationCodec(self.observation_space)
        self.actions = ActionCodec(self.action_space)
        self._device = torch.device(device)

    @property
    def env(self) -> str | None:
        """The environment that it was trained in, if its folder says so."""
        env = self.manifest.config.get("env")
        return env if isinstance(env, str) else None

    def initial_state(self, batch: int = 1) -> State:
        """The state before the first step of ``batch`` environments."""
        return {key: value.cpu().numpy() for key, value in self.policy.initial_state(batch).items()}

    def act(
        self,
        observation: Any,
        state: Mapping[str, Array] | None = None,
        is_first: Array | None = None,
        mode: Mode = "eval",
    ) -> tuple[Any, State]:
        """Choose actions for ``N`` environments.

        ``observation`` is a batch ``(N, ...)`` in the structure of ``observation_space``, ``is_first`` ``(N,)`` bool
        is true where an episode begins (there the state counts as zero). Without ``state`` all of them begin.
        ``mode="eval"`` takes the best actions, ``"train"`` samples. Returns the actions, ``(N, ...)`` in the structure
        and the units of ``action_space``, and the next state.
        """
        flat = self.observations.flatten(observation)
        batch = len(next(iter(flat.values())))
        first = np.full(batch, state is None) if is_first is None else np.asarray(is_first, bool)
        state = self.initial_state(batch) if state is None else state
        with torch.inference_mode():
            chosen, following, _ = self.policy.act(
                {key: self._tensor(value) for key, value in flat.items()},
                self._tensor(first),
                {key: self._tensor(value) for key, value in state.items()},
                mode,
            )
        executed, _ = self.actions.unflatten({key: value.cpu().numpy() for key, value in chosen.items()})
        return executed, {key: value.cpu().numpy() for key, value in following.items()}

    def step(
        self, observation: Any, state: Mapping[str, Array] | None = None, mode: Mode = "eval"
    ) -> tuple[Any, State]:
        """Choose one action for one observation of one environment; no ``state``: its episode begins."""
        batch = nest(
            (leaf, np.asarray(value_at(observation, leaf), leaf.space.dtype)[None]) for leaf in self.observations.leaves
        )
        first = np.array([state is None])
        executed, following = self.act(batch, self.initial_state() if state is None else state, first, mode)
        return first_of(executed), following

    def act_by_key(
        self, observation: Mapping[str, Array], state: Mapping[str, Array], is_first: Array, mode: Mode = "eval"
    ) -> tuple[dict[str, Array], State]:
        """As ``act``, with observations and actions by flat key (``obs``, ``camera/left``, ``action``)."""
        batch = nest((leaf, observation[leaf.key]) for leaf in self.observations.leaves)
        executed, following = self.act(batch, state, is_first, mode)
        return {leaf.key: np.asarray(value_at(executed, leaf)) for leaf in self.actions.leaves}, following

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device)


def load(
    directory: Path | str, *, agent: AgentName | None = None, device: str = "cpu", seed: int = 0
) -> ExportedPolicy:
    """Load a policy folder, or the policy of a checkpoint, after comparing every file with its digest.

    ``agent`` is needed only for an agent class that cannot be imported by the name that the folder has of it.
    Raises ``CheckpointError`` if the folder is damaged, ``ConfigError`` if its algorithm is not installed.
    """
    directory = Path(directory)
    open_checkpoint(directory)
    policy, manifest = load_policy(directory, agent=agent, seed=seed, device=device)
    return ExportedPolicy(policy, manifest, device)


def seen_in_acting(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """``space`` without what only training may read."""
    if not isinstance(space, spaces.Dict):
        return space
    return spaces.Dict({key: part for key, part in space.spaces.items() if not f"{key}/".startswith(TRAINING_ONLY)})


def value_at(nested: Any, leaf: Leaf) -> Any:
    """The entry of a nested value that ``leaf`` names."""
    for step in leaf.path:
        nested = nested[step]
    return nested


def nest(entries: Any) -> Any:
    """Leaves and their values as nested dicts, by path; a single leaf without a path is itself."""
    nested: dict[Any, Any] = {}
    for leaf, value in entries:
        if not leaf.path:
            return value
        inner = nested
        for step in leaf.path[:-1]:
            inner = inner.setdefault(step, {})
        inner[leaf.path[-1]] = value
    return nested


def first_of(batch: Any) -> Any:
    """The first entry of a batch of nested values."""
    if isinstance(batch, Mapping):
        return {key: first_of(value) for key, value in batch.items()}
    if isinstance(batch, Sequence):
        return tuple(first_of(value) for value in batch)
    return batch[0]

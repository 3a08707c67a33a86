"""Environments stepped one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray
from oneiros.envs import snapshot
from oneiros.envs.options import AnyEnv
from oneiros.envs.vector.buffer import ObservationBuffer
from oneiros.envs.vector.fault import EnvironmentFault
from oneiros.envs.vector.slot import Info, Slot

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


class SyncVector(VectorEnv[Any, Any, Any]):
    """A Gymnasium vector environment that costs a few microseconds a step and survives faults.

    It differs from ``gymnasium.vector.SyncVectorEnv`` in what it returns: the observation and flag arrays are the same
    objects at every call, overwritten in place; infos are not merged but are the list ``infos["each"]`` of what the
    environments returned; ``infos["faults"]`` maps an environment's index to the ``EnvironmentFault`` because of which
    it begins a new episode with this very observation. Raises ``EnvironmentBroken`` when one cannot be brought back.
    """

    def __init__(
        self, factory: Callable[[], AnyEnv], num_envs: int, *, name: str = "", seeds: Sequence[int] | None = None
    ) -> None:
        """``factory`` builds each copy; ``seeds`` are those of the first reset, where it is given none."""
        self._slots: list[Slot] = []
        first = factory()
        self.num_envs = num_envs
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = first.render_mode
        self._buffer = ObservationBuffer(first.observation_space, num_envs)
        name = name or "the environment"
        self._slots.append(Slot(factory, self._buffer, 0, name, first))
        try:
            for index in range(1, num_envs):
                self._slots.append(Slot(factory, self._buffer, index, name))
        except BaseException:
            self.close_extras()
            raise
        self._seeds: Sequence[int | None] | None = seeds
        self._rewards: Numbers = np.zeros(num_envs, np.float64)
        self._terminations: Flags = np.zeros(num_envs, np.bool_)
        self._truncations: Flags = np.zeros(num_envs, np.bool_)
        self._iterates = not isinstance(first.action_space, spaces.Dict | spaces.Tuple)

    @property
    def envs(self) -> list[AnyEnv]:
        """The environments themselves."""
        return [slot.env for slot in self._slots]

    def reset(self, *, seed: int | Sequence[int | None] | None = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode in each, or in those that are true in ``options["reset_mask"]``, ``(N,)`` bool."""
        options = dict(options) if options else {}
        mask = options.pop("reset_mask", None)
        seeds = self._take_seeds(seed)
        each: list[Info] = [{}] * self.num_envs
        faults: dict[int, EnvironmentFault] = {}
        for index, slot in enumerate(self._slots):
            if mask is not None and not mask[index]:
                continue
            each[index], fault = slot.reset(seeds[index], options or None)
            if fault is not None:
                faults[index] = fault
        return self._buffer.batch, {"each": each, "faults": faults} if faults else {"each": each}

    def step(self, actions: Any) -> tuple[Any, Numbers, Flags, Flags, Info]:
        """Execute one action in each environment, or reset it where its episode was over."""
        if not self._iterates:
            actions = list(iterate(self.action_space, actions))
        rewards, terminations, truncations = self._rewards, self._terminations, self._truncations
        each: list[Info] = []
        infos: Info = {"each": each}
        for index, slot in enumerate(self._slots):
            reward, terminated, truncated, info, fault = slot.step(actions[index])
            rewards[index] = reward
            terminations[index] = terminated
            truncations[index] = truncated
            each.append(info)
            if fault is not None:
                infos.setdefault("faults", {})[index] = fault
        return self._buffer.batch, rewards, terminations, truncations, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call each environment's method ``name``, or read its attribute of that name."""
        found = [slot.env.get_wrapper_attr(name) for slot in self._slots]
        return tuple(value(*args, **kwargs) if callable(value) else value for value in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Each environment's attribute ``name``."""
        return tuple(slot.env.get_wrapper_attr(name) for slot in self._slots)

    def set_attr(self, name: str, values: Any) -> None:
        """Set each environment's attribute ``name``, to one value or to a list of ``N``."""
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        for slot, value in zip(self._slots, values, strict=True):
            slot.env.set_wrapper_attr(name, value)

    def render(self) -> tuple[Any, ...]:
        """What each environment renders."""
        return tuple(slot.env.render() for slot in self._slots)

    def get_states(self) -> list[dict[str, Any]] | None:
        """Each environment's state (``oneiros.envs.snapshot``), or None where one of them cannot say it."""
        taken = [snapshot.take(slot.env) for slot in self._slots]
        if any(state is None for state in taken):
            return None
        return [{"ended": slot.ended, "env": state} for slot, state in zip(self._slots, taken, strict=True)]

    def set_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from what ``get_states`` returned."""
        for slot, state in zip(self._slots, states, strict=True):
            snapshot.restore(slot.env, state["env"])
            slot.ended = bool(state["ended"])
        self._seeds = None

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for slot in self._slots:
            slot.close()

    def _take_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if isinstance(seed, int):
            return [seed + index for index in range(self.num_envs)]
        seeds, self._seeds = (self._seeds if seed is None else seed), None
        return [None] * self.num_envs if seeds is None else seeds

"""Any Gymnasium id: ``CartPole-v1``, ``ALE/Pong-v5``, ``my_package:MyEnv-v0``."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium
from gymnasium import error as gym_error
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import AddRenderObservation
from oneiros.envs import minigrid_suite
from oneiros.envs import options as generic
from oneiros.envs.contract import NOTHING, InvalidOption, MissingDependency, Requirement, UnknownEnvironment
from oneiros.envs.options import AnyEnv

PLUGINS: Mapping[str, Requirement] = {
    "ALE": Requirement("pip install 'oneiros[atari]'", ("ale_py",)),
    "MiniGrid": Requirement("pip install 'oneiros[minigrid]'", ("minigrid",)),
    "BabyAI": Requirement("pip install 'oneiros[minigrid]'", ("minigrid",)),
}
"""Packages whose ids Gymnasium knows only once they are imported, by how the ids begin."""


class GymSuite:
    """Everything that is registered with Gymnasium, in this process or by an installed package.

    Its own options, beside those of the environment itself: ``pixels`` (the observation is the rendered frame) and
    ``render_mode``. ``time_limit`` replaces the limit that an id is registered with. MiniGrid's ids, whose own
    observations hold text, get the wrappers of the suite ``minigrid``.
    """

    name = "gym"
    description = "any Gymnasium id, with or without 'gym/' before it"
    requirement = NOTHING
    handles = frozenset({"action_repeat", "time_limit"})

    def tasks(self) -> Sequence[str]:
        """The ids that Gymnasium knows now; packages that register theirs when imported are imported if installed."""
        for requirement in PLUGINS.values():
            if not requirement.missing():
                _plug_in(requirement)
        return sorted(gymnasium.registry)

    def resolve(self, task: str) -> dict[str, Any]:
        """The registered specification, which also builds what only this process has registered."""
        return {"spec": self._spec(task)}

    def make(
        self,
        task: str,
        *,
        pixels: bool = False,
        render_mode: str | None = None,
        action_repeat: int | None = None,
        time_limit: int | None = None,
        spec: EnvSpec | None = None,
        **options: Any,
    ) -> AnyEnv:
        """Build the environment ``task``, or the one that ``spec`` describes; ``options`` are passed to it."""
        limits = {"action_repeat": action_repeat, "time_limit": time_limit}
        if task.startswith(minigrid_suite.PREFIXES) and not pixels:
            minigrid_suite.SUITE.requirement.check(task)
            return generic.apply(minigrid_suite.SUITE.make(task, render_mode=render_mode, **options), task, limits)
        spec = self._spec(task) if spec is None else deepcopy(spec)
        # Faults and order of calls are checked where environments are stepped, and once by `oneiros envs check`.
        spec.disable_env_checker = True
        spec.order_enforce = False
        if time_limit is not None:
            spec.max_episode_steps = None
        taken = _option_names(spec)
        unknown = sorted(set(options) - taken) if taken is not None else []
        if unknown:
            valid = ", ".join(sorted((taken or set()) | {"pixels", "render_mode"} | set(generic.GENERIC)))
            raise InvalidOption(f"{task} takes no option {unknown[0]!r}: there are {valid}")
        env = _make(spec, "rgb_array" if pixels else render_mode, options)
        if pixels:
            env.reset(seed=0)
            env = AddRenderObservation(env, render_only=True)
        return generic.apply(env, task, limits)

    def _spec(self, task: str) -> EnvSpec:
        for prefix, requirement in PLUGINS.items():
            if task.startswith(prefix):
                requirement.check(task)
                _plug_in(requirement)
        module, _, name = task.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
            return deepcopy(gymnasium.spec(name))
        except ModuleNotFoundError as error:
            raise MissingDependency(f"{task} needs the module {error.name}, which is not installed") from error
        except gym_error.UnregisteredEnv:
            raise UnknownEnvironment() from None
        except gym_error.Error as error:
            raise UnknownEnvironment(f"{task!r} is not a Gymnasium id: {error}") from error


def _plug_in(requirement: Requirement) -> None:
    for module in requirement.modules:
        gymnasium.register_envs(importlib.import_module(module))


def _make(spec: EnvSpec, render_mode: str | None, options: Mapping[str, Any]) -> AnyEnv:
    if render_mode == "rgb_array":
        # pygame, which draws most of Gymnasium's own frames, opens the sound card otherwise, and complains.
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    try:
        # Environments that draw nothing need not take the argument.
        mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        return gymnasium.make(spec, **mode, **options)
    except gym_error.DependencyNotInstalled as error:
        raise MissingDependency(f"{spec.id} lacks a dependency: {error}") from error
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{spec.id} needs the module {error.name}, which is not installed") from error


def _option_names(spec: EnvSpec) -> set[str] | None:
    """The names of what the environment's constructor takes; None where it takes anything."""
    creator: Callable[..., Any] | str | None = spec.entry_point
    try:
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        parameters = inspect.signature(creator).parameters.values() if creator else []
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


SUITE = GymSuite()

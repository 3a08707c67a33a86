"""Environments that RLlib users bring themselves: registered with Tune, or passed as a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from oneiros.envs import registry
from oneiros.envs.contract import NOTHING, UnknownEnvironment
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry

Creator = Callable[[EnvContext], gymnasium.Env[Any, Any]]


class BroughtSuite:
    """A suite of this process only: ``rllib/<name>`` for each environment that a config brought along."""

    name = "rllib"
    description = "Environments registered with ray.tune.register_env, or passed to .environment() as a class."
    requirement = NOTHING

    def __init__(self) -> None:
        self._creators: dict[str, tuple[Creator, EnvContext]] = {}

    def add(self, name: str, creator: Creator, context: EnvContext) -> str:
        """Make ``creator`` available; returns the id by which it is."""
        self._creators[name] = (creator, context)
        return f"{self.name}/{name}"

    def tasks(self) -> Sequence[str]:
        """Names of what was brought."""
        return list(self._creators)

    def make(self, task: str, **options: Any) -> gymnasium.Env[Any, Any]:
        """Build one; ``options`` join the ``env_config`` that its creator is given."""
        if task not in self._creators:
            raise UnknownEnvironment()
        creator, context = self._creators[task]
        return creator(EnvContext({**context, **options}, context.worker_index, num_workers=context.num_workers))


_SUITE = BroughtSuite()


def is_brought(env: Any) -> bool:
    """Whether ``env`` is not an id of ours or Gymnasium's."""
    return not isinstance(env, str) or bool(_global_registry.contains(ENV_CREATOR, env))


def resolve(env: Any, creator: Creator, context: EnvContext, use: str = "") -> tuple[str, dict[str, Any]]:
    """Return the id, and the options, by which ``oneiros.envs.registry`` makes the environment of a config.

    One that a config brought has an id for each ``use`` that is made of it with a context of its own.
    """
    if not is_brought(env):
        return env, dict(context)
    registry.register(_SUITE)
    name = env if isinstance(env, str) else f"{env.__module__}.{env.__qualname__}"
    return _SUITE.add(name + use, creator, context), {}

"""The state of a wrapped environment, taken out and put back, so that a resumed run goes on inside its episode.

An environment takes part by offering ``get_state`` and ``set_state`` (``oneiros.envs.contract.Snapshot``), and so does
a wrapper that has a state. Gymnasium's classic control tasks and the wrappers used here are known without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from oneiros.envs.contract import Snapshot
from oneiros.envs.options import ActionRepeat, AnyEnv, Frame, InfoMask, Seeded

STATELESS: tuple[type, ...] = (ActionRepeat, Frame, InfoMask, wrappers.PassiveEnvChecker)
WRAPPER_STATE: Mapping[type, str] = {
    wrappers.TimeLimit: "_elapsed_steps",
    wrappers.OrderEnforcing: "_has_reset",
    Seeded: "_seed",
}
CLASSIC_CONTROL = ("state", "steps_beyond_terminated", "last_u")


def take(env: AnyEnv) -> dict[str, Any] | None:
    """Everything that later steps depend on, one entry a layer from the outside in; None where a layer cannot say."""
    layers: list[Any] = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Snapshot):
            layers.append(dict(env.get_state()))
        elif type(env) in WRAPPER_STATE:
            layers.append(getattr(env, WRAPPER_STATE[type(env)]))
        elif type(env) in STATELESS:
            layers.append(None)
        else:
            return None
        env = env.env
    base = _take_base(env)
    return None if base is None else {"layers": layers, "base": base}


def restore(env: AnyEnv, state: Mapping[str, Any]) -> None:
    """Put back what ``take`` returned for an environment made in the same way."""
    for layer in state["layers"]:
        if not isinstance(env, gymnasium.Wrapper):
            raise ValueError("the saved environment state is of an environment with more wrappers than this one")
        if isinstance(env, Snapshot):
            env.set_state(layer)
        elif type(env) in WRAPPER_STATE:
            setattr(env, WRAPPER_STATE[type(env)], layer)
        env = env.env
    if isinstance(env, Snapshot):
        env.set_state(state["base"])
        return
    for name, value in state["base"]["attributes"].items():
        setattr(env, name, value)
    set_rng_state(env, state["base"]["rng"])


def rng_state(env: AnyEnv) -> dict[str, Any]:
    """The state of the random generator that Gymnasium gives every environment."""
    return dict(env.np_random.bit_generator.state)


def set_rng_state(env: AnyEnv, state: Mapping[str, Any]) -> None:
    """Put back what ``rng_state`` returned."""
    generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
    generator.bit_generator.state = dict(state)
    env.np_random = generator


def _take_base(env: AnyEnv) -> dict[str, Any] | None:
    if isinstance(env, Snapshot):
        return dict(env.get_state())
    if not type(env).__module__.startswith("gymnasium.envs.classic_control."):
        return None
    attributes = {name: _plain(getattr(env, name)) for name in CLASSIC_CONTROL if hasattr(env, name)}
    return {"attributes": attributes, "rng": rng_state(env)}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float) else np.array(value, np.float64)

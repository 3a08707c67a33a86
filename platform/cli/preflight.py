"""What can be known to be wrong before anything expensive starts."""

from __future__ import annotations

from importlib.util import find_spec

from oneiros.platform.config import ConfigError, Resolved


def check(resolved: Resolved) -> None:
    """Raise the user's mistake, if there is one, in environment, spaces, device or engine.

    Makes one environment and the acting part of the agent. Raises ``ConfigError``, or the registry's or the
    algorithm's own ``ValueError`` classes.
    """
    config = resolved.config
    if config.engine == "rllib" and find_spec("ray") is None:
        raise ConfigError(
            "engine rllib needs Ray, which is not installed: pip install 'ray[default,tune,rllib]', "
            "or choose --engine local."
        )
    from oneiros.envs import registry
    from oneiros.platform.training.agents import build_agent, resolve_device

    resolve_device(config.device)
    env = registry.make(config.env, **config.env_options)
    try:
        hyper = resolved.algorithm.hyperparameters(config.hyper)
        build_agent(config.agent, hyper, env.observation_space, env.action_space, role="policy")
    finally:
        env.close()  # type: ignore[no-untyped-call]

"""What can be known to be wrong before anything expensive starts."""

from __future__ import annotations

from importlib.util import find_spec

from oneiros.platform.config import ConfigError, Resolved


def check(resolved: Resolved) -> None:
    """Raise the user's mistake, if there is one, in environment, spaces, device or engine.

    Makes one environment. An agent class that has ``check_spaces(obs_space, action_space)`` is asked by it, any other
    by building what acts. Raises ``ConfigError``, or the registry's or the algorithm's own ``ValueError`` classes.
    """
    config = resolved.config
    if config.engine == "rllib" and find_spec("ray") is None:
        raise ConfigError(
            "engine rllib needs Ray, which is not installed: pip install 'ray[default,tune,rllib]', "
            "or choose --engine local."
        )
    from oneiros.envs import registry
    from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
    from oneiros.platform.training.agents import build_agent, resolve_device, told

    resolve_device(config.device)
    env = registry.make(config.env, **config.env_options)
    try:
        hyper = resolved.algorithm.hyperparameters(config.hyper)
        check_spaces = getattr(resolved.algorithm.agent_class, "check_spaces", None)
        if check_spaces is not None:
            seen = told(resolved.algorithm.agent_class, flatten_observation_space(env.observation_space))
            check_spaces(seen, flatten_action_space(env.action_space))
        else:
            build_agent(config.agent, hyper, env.observation_space, env.action_space, role="policy")
    finally:
        env.close()  # type: ignore[no-untyped-call]

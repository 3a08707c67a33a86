"""What can be known to be wrong before anything expensive starts."""

from __future__ import annotations

from importlib.util import find_spec

from oneiros.platform.cli import beginning
from oneiros.platform.config import ConfigError, Resolved


def check(resolved: Resolved, *, new: bool = True) -> None:
    """Raise the user's mistake, if there is one, in environment, data, spaces, device or engine.

    Makes one environment, a second one where evaluations have options of their own, or none to learn from data alone.
    An agent class that has ``check_spaces(obs_space, action_space)`` is asked by it, any other by building what acts.
    What a run begins with is looked at only if the run is ``new``. Raises ``ConfigError``, or the ``ValueError``
    classes of the registry, the algorithm, data sets and checkpoints.
    """
    config = resolved.config
    if config.engine == "rllib" and find_spec("ray") is None:
        raise ConfigError(
            "engine rllib needs Ray, which is not installed: pip install 'ray[default,tune,rllib]', "
            "or choose --engine local."
        )
    from oneiros.envs.spaces import flatten_action_space, flatten_observation_space
    from oneiros.platform.training.agents import build_agent, resolve_device, told

    resolve_device(config.device)
    observation_space, action_space = beginning.spaces_of(config)
    hyper = resolved.algorithm.hyperparameters(config.hyper)
    check_spaces = getattr(resolved.algorithm.agent_class, "check_spaces", None)
    if check_spaces is not None:
        seen = told(resolved.algorithm.agent_class, flatten_observation_space(observation_space))
        check_spaces(seen, flatten_action_space(action_space))
    else:
        build_agent(config.agent, hyper, observation_space, action_space, role="policy")
    beginning.check_evaluation(config, (observation_space, action_space))
    if new:
        beginning.check(config, (observation_space, action_space))

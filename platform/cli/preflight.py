"""What can be known to be wrong before anything expensive starts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from oneiros.platform.cli import beginning
from oneiros.platform.config import ConfigError, ReplayConfig, Resolved


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
    _check_replay(config.replay, hyper)
    check_spaces = getattr(resolved.algorithm.agent_class, "check_spaces", None)
    if check_spaces is not None:
        seen = told(resolved.algorithm.agent_class, flatten_observation_space(observation_space))
        check_spaces(seen, flatten_action_space(action_space))
    else:
        build_agent(config.agent, hyper, observation_space, action_space, role="policy")
    beginning.check_evaluation(config, (observation_space, action_space))
    if new:
        beginning.check(config, (observation_space, action_space))


def _check_replay(replay: ReplayConfig, hyper: Any) -> None:
    window = hyper.replay_context + hyper.batch_length
    if replay.capacity < window:
        raise ConfigError(
            f"replay.capacity is {replay.capacity}, less than one sequence of {window} rows: set it higher, or "
            "hyper.batch_length lower."
        )
    if replay.latent_stride > 1 and hyper.replay_context != 1:
        raise ConfigError(
            f"replay.latent_stride is {replay.latent_stride}, for which hyper.replay_context must be 1, "
            f"not {hyper.replay_context}."
        )

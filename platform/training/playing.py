"""Evaluating what an engine's core has learnt, in environments of their own."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from oneiros.platform.config import RunConfig
from oneiros.platform.rollout import EvaluationResult, evaluate
from oneiros.platform.training.agents import build_agent
from oneiros.platform.training.core import LearnerCore


def play(
    config: RunConfig,
    hyper: Any,
    core: LearnerCore,
    spaces_: tuple[spaces.Space[Any], spaces.Space[Any]],
    *,
    episodes: int,
    seed: int,
    env_steps: int,
) -> EvaluationResult:
    """Play ``episodes`` of the environment of the run's evaluations with a copy of the policy."""
    policy = build_agent(config.agent, hyper, *spaces_, seed=seed, role="policy")
    policy.load_policy_state(core.policy_state())
    result = evaluate(
        config.env,
        policy,
        episodes,
        seed=seed,
        num_envs=config.num_envs_per_runner,
        vectorization=config.vectorization,
        env_options=config.evaluation_env_options,
    )
    return EvaluationResult.join([result], env_steps)

"""Evaluation episodes shared by several env runners."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from oneiros.platform.rollout import EvaluationResult
from ray.rllib.env.env_runner_group import EnvRunnerGroup

log = logging.getLogger(__name__)


def play_on_runners(group: EnvRunnerGroup, episodes: int, seed: int, weights: Any) -> list[EvaluationResult]:
    """Play ``episodes`` on the group's healthy runners; what one that dies was to play is played by the others.

    Raises ``RuntimeError`` if no runner is left, or if one cannot play.
    """
    parts: list[EvaluationResult] = []
    missing, attempt = episodes, 0
    while missing:
        runners = group.healthy_env_runner_ids()[:missing]
        if not runners:
            raise RuntimeError(f"all evaluation runners are gone; {missing} of {episodes} episodes were not played")
        shares = [missing // len(runners) + (i < missing % len(runners)) for i in range(len(runners))]
        arguments = [
            {"episodes": share, "seed": seed + 10_007 * attempt + 101 * i, "weights": weights}
            for i, share in enumerate(shares)
        ]
        # Nothing limits how long episodes take; a runner that makes no more steps ends itself.
        answers: Sequence[EvaluationResult | str] = group.foreach_env_runner(
            ["play_apart"] * len(runners), kwargs=arguments, remote_worker_ids=runners, local_env_runner=False
        )
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(f"an evaluation runner could not play: {answer}")
            parts.append(answer)
            missing -= answer.episodes
        attempt += 1
    return parts

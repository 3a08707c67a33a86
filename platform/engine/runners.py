"""Env runners that died, and the end of all of them: what RLlib does too, but waits for."""

from __future__ import annotations

from typing import Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup

PROBE = "probe"
STOP_SECONDS = 10.0
"""How long env runners may take to close their environments."""


def take_back(group: EnvRunnerGroup) -> list[int]:
    """Take runners that Ray has restarted back into service; their weights come with the next request.

    Nobody waits for one that is still starting: RLlib's own probe would hold up training for as long.
    """
    manager = group._worker_manager
    unhealthy = [runner for runner in manager.actor_ids() if not manager.is_actor_healthy(runner)]
    if unhealthy:
        manager.foreach_actor_async("ping", tag=PROBE, remote_actor_ids=unhealthy, healthy_only=False)
    answers: Any = manager.fetch_ready_async_reqs(tags=PROBE, timeout_seconds=0, mark_healthy=True)
    return [answer.actor_id for answer in answers if answer.ok]


def end(group: EnvRunnerGroup) -> None:
    """Let env runners close their environments, then end them: RLlib alone would wait for ever for one that hangs."""
    group.foreach_env_runner(
        "stop", healthy_only=False, local_env_runner=False, timeout_seconds=STOP_SECONDS, mark_healthy=False
    )
    group._worker_manager.clear()

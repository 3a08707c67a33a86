"""RLlib's callbacks, called from our loop."""

from __future__ import annotations

from typing import Any

from oneiros.platform.rollout import Episode
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.utils import force_list


class FinishedEpisode:
    """What a callback may ask of an episode; the steps themselves are in the replay."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self.is_done = True

    def get_return(self) -> float:
        """Undiscounted sum of rewards."""
        return self._episode.score

    def env_steps(self) -> int:
        """Policy steps."""
        return self._episode.length

    def __len__(self) -> int:
        return self._episode.length


def call(runner: Any, name: str, **kwargs: Any) -> None:
    """Call the user's callbacks called ``name`` on an env runner."""
    if not hasattr(runner, "_callbacks"):
        runner._callbacks = [cls() for cls in force_list(runner.config.callbacks_class)]
    make_callback(
        name,
        runner._callbacks,
        getattr(runner.config, f"callbacks_{name}"),
        kwargs={"env_runner": runner, "metrics_logger": runner.metrics, **kwargs},
    )

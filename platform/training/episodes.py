"""What is known about finished training episodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from oneiros.platform.rollout import Episode


class EpisodeLog:
    """Counts finished episodes and averages the most recent ones; those that a fault cut short are left out."""

    def __init__(self, window: int = 20) -> None:
        self.count = 0
        self._recent: deque[Episode] = deque(maxlen=window)

    def add(self, episodes: Iterable[Episode]) -> None:
        """Take newly finished episodes, oldest first."""
        whole = [episode for episode in episodes if not episode.faulted]
        self.count += len(whole)
        self._recent.extend(whole)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the most recent episodes; None before the first."""
        return sum(episode.score for episode in self._recent) / len(self._recent) if self._recent else None

    def metrics(self) -> dict[str, float]:
        """``episodes``; once there is one ``return``, ``length`` (means), ``return_min``, ``return_max`` and
        ``episode/<name>`` for what the environment says of its episodes."""
        metrics: dict[str, float] = {"episodes": self.count}
        if self._recent:
            scores = [episode.score for episode in self._recent]
            metrics |= {
                "return": sum(scores) / len(scores),
                "return_min": min(scores),
                "return_max": max(scores),
                "length": sum(episode.length for episode in self._recent) / len(self._recent),
            }
            for name in sorted({name for episode in self._recent for name in episode.extras}):
                values = [episode.extras.get(name, 0.0) for episode in self._recent]
                metrics[f"episode/{name}"] = sum(values) / len(values)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` takes."""
        recent = [[episode.score, episode.length, dict(episode.extras)] for episode in self._recent]
        return {"count": self.count, "recent": recent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from ``state``."""
        self.count = state["count"]
        self._recent.clear()
        self._recent.extend(Episode(score, length, extras=extras) for score, length, extras in state["recent"])

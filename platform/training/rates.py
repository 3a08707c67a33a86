"""How fast a run goes."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Rates:
    """Turns counters into rates per second over the time since they were last asked for."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._last: dict[str, float] = {}

    def per_second(self, counters: Mapping[str, float]) -> dict[str, float]:
        """Return ``{name}_per_s`` for every counter, measured since the previous call (or since it first appeared)."""
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        rates = {f"{name}_per_s": (value - self._last.get(name, value)) / elapsed for name, value in counters.items()}
        self._since, self._last = now, dict(counters)
        return rates

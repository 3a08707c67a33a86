"""Repeated measurements of one thing: what is told of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Durations:
    """Wall-clock seconds, and seconds of this process' own computing, of repeated calls."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, call: Callable[[], object]) -> None:
        """Call once, and remember how long it took."""
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    @property
    def median(self) -> float:
        """The middle one, in seconds."""
        return statistics.median(self.wall)

    def summary(self) -> dict[str, float]:
        """Median and spread in seconds; ``cpu_s`` is the median over all threads, and grows less on a busy machine."""
        quarters = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else [self.wall[0]] * 3
        return {
            "median_s": self.median,
            "min_s": min(self.wall),
            "max_s": max(self.wall),
            "quarter_s": quarters[0],
            "three_quarters_s": quarters[2],
            "cpu_s": statistics.median(self.cpu),
        }


def repeat(call: Callable[[], object], times: int, warm_up: int = 1) -> Durations:
    """Durations of ``times`` calls, after ``warm_up`` that do not count."""
    for _ in range(warm_up):
        call()
    durations = Durations()
    for _ in range(times):
        durations.time(call)
    return durations

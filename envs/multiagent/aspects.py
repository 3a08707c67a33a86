"""Aspects: which parts of an observation an agent may see.

An agent that is limited to some aspects gets a **new** observation, made of those parts alone. Nothing is blanked in
place, so there is nothing to forget to blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import InvalidOption

AnySpace = spaces.Space[Any]


@dataclass(frozen=True)
class Aspect:
    """One part of an observation: the entry ``key`` of a Dict (``""``: a bare observation), or a range of its vector.

    ``stop`` None takes the entry whole.
    """

    key: str = ""
    start: int = 0
    stop: int | None = None

    def space(self, full: AnySpace) -> AnySpace:
        """The space of this part of an observation from ``full``; raises ``InvalidOption``."""
        entry = full
        if self.key:
            if not isinstance(full, spaces.Dict) or self.key not in full.spaces:
                raise InvalidOption(f"the observation {full} has no entry {self.key!r} to make an aspect of")
            entry = full.spaces[self.key]
        if self.stop is None:
            return entry
        if not isinstance(entry, spaces.Box) or len(entry.shape) != 1 or not self.start < self.stop <= entry.shape[0]:
            raise InvalidOption(f"the numbers {self.start} to {self.stop} are not all in the observation {entry}")
        part = slice(self.start, self.stop)
        return spaces.Box(entry.low[part], entry.high[part], dtype=np.dtype(entry.dtype).type)  # type: ignore[arg-type]

    def take(self, observation: Any) -> Any:
        """A copy of this part of ``observation``."""
        entry = observation[self.key] if self.key else observation
        return np.array(entry if self.stop is None else np.asarray(entry)[self.start : self.stop])


class AspectSpec:
    """The aspects that one agent may see, by name; an observation is constructed from them."""

    def __init__(self, aspects: Mapping[str, Aspect]) -> None:
        self.aspects = dict(aspects)

    def only(self, agent: str, names: Sequence[str]) -> AspectSpec:
        """The spec of ``names`` alone; raises ``InvalidOption`` naming an aspect that ``agent`` does not have."""
        for name in names:
            if name not in self.aspects:
                raise InvalidOption(f"{agent} has no aspect {name!r}: there are {', '.join(sorted(self.aspects))}")
        if not names:
            raise InvalidOption(f"{agent} needs at least one aspect: there are {', '.join(sorted(self.aspects))}")
        return AspectSpec({name: self.aspects[name] for name in names})

    def space(self, full: AnySpace) -> spaces.Dict:
        """The space of the observations that ``construct`` makes; raises ``InvalidOption``."""
        return spaces.Dict({name: aspect.space(full) for name, aspect in self.aspects.items()})

    def construct(self, observation: Any) -> dict[str, Any]:
        """A new observation that holds copies of the declared parts of ``observation``, and nothing else."""
        return {name: aspect.take(observation) for name, aspect in self.aspects.items()}

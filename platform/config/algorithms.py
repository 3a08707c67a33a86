"""Algorithms by name: entry points of the group ``oneiros.algorithms``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from typing import Any

from oneiros.platform.config.errors import ConfigError, explain, unknown
from oneiros.platform.config.presets import Preset, load_presets
from pydantic import BaseModel, ValidationError

GROUP = "oneiros.algorithms"


@dataclass(frozen=True)
class Algorithm:
    """An algorithm as its package declares it; its class is imported when first asked for."""

    name: str
    entry_point: EntryPoint

    @cached_property
    def agent_class(self) -> Any:
        """The class behind the entry point.

        Raises ``ConfigError`` when it cannot be imported or lacks ``Config``.
        """
        try:
            agent_class = self.entry_point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"algorithm {self.name!r} ({self.entry_point.value}) cannot be imported: {error}."
            ) from error
        config = getattr(agent_class, "Config", None)
        if not (isinstance(config, type) and issubclass(config, BaseModel)):
            raise ConfigError(
                f"algorithm {self.name!r} ({self.entry_point.value}) has no Config, a pydantic model of its settings."
            )
        return agent_class

    @property
    def config_class(self) -> type[BaseModel]:
        """The pydantic model of the algorithm's hyperparameters."""
        config_class: type[BaseModel] = self.agent_class.Config
        return config_class

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """The presets beside the algorithm; none when it declares no ``PRESETS``."""
        source: Traversable | None = getattr(self.agent_class, "PRESETS", None)
        return load_presets(source) if source is not None else {}

    @property
    def package(self) -> str:
        """The distribution that brings the algorithm, with its version."""
        dist = self.entry_point.dist
        return f"{dist.name} {dist.version}" if dist is not None else "unknown"

    def hyperparameters(self, values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> BaseModel:
        """Validate ``values``; raises ``ConfigError`` naming the first key that is wrong."""
        try:
            return self.config_class(**values)
        except ValidationError as error:
            raise explain(error, prefix="hyper", origins=origins) from error


def list_algorithms() -> dict[str, Algorithm]:
    """Every installed algorithm by name, none of them imported yet."""
    return {point.name: Algorithm(point.name, point) for point in sorted(entry_points(group=GROUP))}


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of that name; raises ``ConfigError`` suggesting the nearest."""
    algorithms = list_algorithms()
    if name not in algorithms:
        raise unknown("algorithm", name, algorithms)
    return algorithms[name]

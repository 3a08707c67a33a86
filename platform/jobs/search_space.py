"""What a sweep varies: settings by their dotted names, each with the values it may take.

::

    learning_rate: {loguniform: [1e-5, 1e-3]}
    train_ratio: {choice: [32, 64, 128]}
    seed: {grid: [0, 1, 2]}              # every one of them, with each of the samples

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.platform.config import ConfigError, read_yaml
from oneiros.platform.config.errors import nearest

KINDS = ("grid", "choice", "uniform", "loguniform", "integer")
_LISTS = ("grid", "choice")


@dataclass(frozen=True)
class Dimension:
    """One setting and what it may be: ``values`` lists them all, or holds the two ends, both of which can occur."""

    key: str
    kind: str
    values: tuple[Any, ...]

    def domain(self) -> Any:
        """Return it as Ray Tune wants it."""
        from ray import tune

        match self.kind:
            case "grid":
                return tune.grid_search(list(self.values))
            case "choice":
                return tune.choice(list(self.values))
            case "uniform":
                return tune.uniform(*self.values)
            case "loguniform":
                return tune.loguniform(*self.values)
        return tune.randint(self.values[0], self.values[1] + 1)


@dataclass(frozen=True)
class SearchSpace:
    """The settings that a sweep varies."""

    dimensions: tuple[Dimension, ...]

    @property
    def grid_size(self) -> int:
        """Combinations of the grids, each of which every sample is tried with."""
        size = 1
        for dimension in self.dimensions:
            if dimension.kind == "grid":
                size *= len(dimension.values)
        return size

    @property
    def is_grid(self) -> bool:
        """Whether nothing is drawn at random."""
        return all(dimension.kind == "grid" for dimension in self.dimensions)

    def corners(self) -> list[dict[str, Any]]:
        """Assignments that between them hold every listed value and both ends of every range, to check all by."""
        first = {dimension.key: dimension.values[0] for dimension in self.dimensions}
        others = [first | {dimension.key: value} for dimension in self.dimensions for value in dimension.values[1:]]
        return [first, *others]

    def domains(self) -> dict[str, Any]:
        """Return Ray Tune's ``param_space``."""
        return {dimension.key: dimension.domain() for dimension in self.dimensions}


def read_space(path: Path) -> SearchSpace:
    """Read a search space from YAML; raises ``ConfigError`` naming the file, the setting and what is wrong."""
    entries = read_yaml(path)
    if not entries:
        raise ConfigError(f"{path} varies nothing: it must hold settings, such as 'seed: {{grid: [0, 1, 2]}}'.")
    return SearchSpace(tuple(_dimension(path, key, entry) for key, entry in entries.items()))


def _dimension(path: Path, key: str, entry: Any) -> Dimension:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(
            f"{key} in {path} must say how it varies, such as {{choice: [1, 2]}}, not {entry!r}; "
            f"there are {', '.join(KINDS)}."
        )
    ((kind, values),) = entry.items()
    if kind not in KINDS:
        guess = nearest(str(kind), KINDS)
        hint = f"did you mean {guess}?" if guess else f"choose from {', '.join(KINDS)}."
        raise ConfigError(f"{key} in {path} varies by {kind!r}, which is unknown: {hint}")
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key} in {path} must list its values, such as {{{kind}: [1, 2]}}, not {values!r}.")
    if kind not in _LISTS:
        _check_range(path, key, kind, values)
    return Dimension(key, kind, tuple(values))


def _check_range(path: Path, key: str, kind: str, values: list[Any]) -> None:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not values[0] < values[1]:
        raise ConfigError(f"{key} in {path} must be {{{kind}: [LOW, HIGH]}} with LOW below HIGH, not {values!r}.")
    if kind == "loguniform" and values[0] <= 0:
        raise ConfigError(f"{key} in {path} varies by loguniform, which begins above 0, not at {values[0]!r}.")
    if kind == "integer" and not all(isinstance(value, int) for value in values):
        raise ConfigError(f"{key} in {path} varies by integer, between whole numbers, not {values!r}.")

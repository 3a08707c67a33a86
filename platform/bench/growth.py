"""How costs grow: with batch, sequence, imagination and model, with the number of environments, with the replay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from oneiros.platform.bench.act import measure_act
from oneiros.platform.bench.learner import LearnerSettings
from oneiros.platform.bench.storage import measure_replay
from oneiros.platform.bench.update import measure_update
from oneiros.platform.config import ConfigError
from oneiros.platform.config.errors import unknown


@dataclass(frozen=True)
class Axis:
    """One thing that is varied while everything else stays."""

    name: str
    values: tuple[Any, ...]
    figure: str
    """What is measured at each value, in seconds."""
    bound: str
    """What bounds it."""


AXES = {
    axis.name: axis
    for axis in (
        Axis(
            "batch_size",
            (4, 8, 16, 32),
            "update",
            "Imagination and the heads are matrix products over batch x length x imagined steps, so from some batch on "
            "the cost is proportional; below, the length sequential steps of the recurrent model cost the same each.",
        ),
        Axis(
            "batch_length",
            (16, 32, 64, 128),
            "update",
            "The recurrent model steps through the sequence one after another, and imagination starts from every "
            "step: both are proportional to the length.",
        ),
        Axis(
            "imagination_length",
            (5, 10, 15, 30),
            "update",
            "Each imagined step is one pass of the recurrent model and the heads over all starts; what remains at 0 is "
            "the world model's own part.",
        ),
        Axis(
            "size",
            ("1m", "12m", "25m"),
            "update",
            "Products grow with the parameters; at 1m launches and memory traffic of small operations dominate.",
        ),
        Axis(
            "envs",
            (1, 4, 8, 16, 64),
            "act",
            "One inference serves all environments of a runner, so its cost is shared by them until its products "
            "outweigh its launches; stepping and copying rows is a fixed cost for each environment.",
        ),
        Axis(
            "replay_rows",
            (10_000, 40_000, 160_000),
            "replay",
            "Sampling copies as many bytes whatever the replay holds; finding a window is a search over chunks, "
            "logarithmic in them. Memory, or the page cache over mapped files, bounds the size.",
        ),
    )
}


def measure_growth(
    axis: str,
    settings: LearnerSettings,
    *,
    values: Sequence[Any] | None = None,
    repeats: int = 5,
    directory: Path | None = None,
) -> dict[str, Any]:
    """The cost at each of ``values`` (the axis' own if None), and the exponent of growth between each two.

    ``settings`` hold what stays. ``directory`` maps the replays of the axis ``replay_rows`` from disk. Raises
    ``ConfigError``.
    """
    if axis not in AXES:
        raise unknown("axis", axis, AXES)
    found = AXES[axis]
    points = list(_measure(found, settings, found.values if values is None else tuple(values), repeats, directory))
    return {
        "axis": axis,
        "figure": found.figure,
        "bound": found.bound,
        "points": points,
        "exponents": exponents(points),
        "obs": settings.obs,
    }


def parse_values(axis: str, words: Sequence[str] | None) -> list[Any] | None:
    """Words of the command line as the values of an axis; raises ``ConfigError``."""
    if not words:
        return None
    if axis == "size":
        return list(words)
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise ConfigError(f"{axis} takes whole numbers from 1 on, not {word!r}.")
    return [int(word) for word in words]


def exponents(points: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Between neighbours: 0 where the cost stays, 1 where it is proportional; None where the values are no numbers."""
    slopes: list[float | None] = []
    for low, high in pairwise(points):
        numbers = isinstance(low["value"], int | float) and isinstance(high["value"], int | float)
        if numbers and high["value"] != low["value"]:
            slopes.append(math.log(high["median_s"] / low["median_s"]) / math.log(high["value"] / low["value"]))
        else:
            slopes.append(None)
    return slopes


def _measure(
    axis: Axis, settings: LearnerSettings, values: Sequence[Any], repeats: int, directory: Path | None
) -> Iterator[dict[str, Any]]:
    for value in values:
        if axis.name == "envs":
            # As a runner does: one vector step of all, divided by their number.
            result = measure_act(settings, value, steps=64 * repeats)
        elif axis.name == "replay_rows":
            folder = None if directory is None else directory / f"replay-{value}"
            result = measure_replay(
                settings.obs, size=settings.size, rows=value, batches=20 * repeats, directory=folder
            )
        else:
            result = measure_update(replace(settings, **{axis.name: value}), repeats, operations=False)
        kept = ("median_s", "min_s", "max_s", "cpu_s", "parameters", "insert_rows_per_s", "row_bytes", "other_load")
        yield {"value": value, **{key: result[key] for key in kept if key in result}}

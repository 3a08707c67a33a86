"""How costs grow: with batch, sequence, imagination and model, with the number of environments, with the replay."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from oneiros.platform.bench.act import FRAGMENT, policy_loop
from oneiros.platform.bench.durations import Durations
from oneiros.platform.bench.learner import Learner, LearnerSettings, checked_device
from oneiros.platform.bench.machine import OtherLoad, describe
from oneiros.platform.bench.storage import filled_replay
from oneiros.platform.config import ConfigError
from oneiros.platform.config.errors import unknown
from oneiros.platform.replay.staging import Stager

BATCHES = 20
"""Batches that a replay stages for one measurement."""


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
            (10_000, 40_000, 160_000, 640_000),
            "replay",
            "Sampling copies as many bytes whatever the replay holds; finding a window is a search over chunks, "
            "logarithmic in them. Memory, or the page cache over mapped files, bounds the size.",
        ),
    )
}


@dataclass
class Subject:
    """What stands at one value of an axis: ``call`` does the thing ``times`` times, ``close`` ends it."""

    value: Any
    call: Callable[[], object]
    times: int
    close: Callable[[], None]
    figures: dict[str, Any] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)


def measure_growth(
    axis: str,
    settings: LearnerSettings,
    *,
    values: Sequence[Any] | None = None,
    repeats: int = 5,
    directory: Path | None = None,
) -> dict[str, Any]:
    """The cost at each of ``values`` (the axis' own if None), and the exponent of growth between each two.

    All are measured in turns, ``repeats`` rounds of them: what else the machine does slows all alike, and ``relative``,
    the median over rounds of the cost beside the first value's, is right on a busy machine, too. On a CPU it is the
    cost in seconds of computing, on a GPU in seconds.

    ``settings`` hold what stays. ``directory`` maps the replays of the axis ``replay_rows`` from disk. Raises
    ``ConfigError``.
    """
    if axis not in AXES:
        raise unknown("axis", axis, AXES)
    found = AXES[axis]
    device = checked_device(settings.device)
    subjects: list[Subject] = []
    try:
        for value in found.values if values is None else values:
            subjects.append(_subject(found, settings, value, directory))
        with OtherLoad() as others:
            for _ in range(repeats):
                for subject in subjects:
                    subject.durations.time(subject.call)
    finally:
        for subject in subjects:
            subject.close()
    points = [_point(subject, subjects[0], device) for subject in subjects]
    return {
        "axis": axis,
        "figure": found.figure,
        "bound": found.bound,
        "points": points,
        "exponents": exponents(points),
        "repeats": repeats,
        "size": None if axis == "size" else settings.size,
        "obs": settings.obs,
        "overrides": dict(settings.overrides),
        "other_load": others.share,
        **describe(device),
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
            slopes.append(math.log(high["relative"] / low["relative"]) / math.log(high["value"] / low["value"]))
        else:
            slopes.append(None)
    return slopes


def _point(subject: Subject, first: Subject, device: torch.device) -> dict[str, Any]:
    """What one value came to, each time and beside the first value."""
    costs = [s.durations.cpu if device.type == "cpu" else s.durations.wall for s in (subject, first)]
    ratios = [own * first.times / (other * subject.times) for own, other in zip(*costs, strict=True)]
    summary = {key: value / subject.times for key, value in subject.durations.summary().items()}
    return {"value": subject.value, "relative": statistics.median(ratios), **summary, **subject.figures}


def _subject(axis: Axis, settings: LearnerSettings, value: Any, directory: Path | None) -> Subject:
    if axis.name == "envs":
        return _acting(settings, value)
    if axis.name == "replay_rows":
        return _replay(settings, value, None if directory is None else directory / f"replay-{value}")
    learner = Learner(replace(settings, **{axis.name: value}))
    learner.settle()
    return Subject(value, learner.update, 1, learner.close, {"parameters": learner.parameters})


def _acting(settings: LearnerSettings, envs: int) -> Subject:
    """As a runner does: steps of all environments at once, the cost divided by their number."""
    loop = policy_loop(settings, envs)
    loop.collect(FRAGMENT)
    return Subject(envs, partial(loop.collect, FRAGMENT), FRAGMENT * envs, loop.close)


def _replay(settings: LearnerSettings, rows: int, directory: Path | None) -> Subject:
    """A replay of so many rows, full."""
    hyper = settings.hyperparameters()
    replay, inserting = filled_replay(
        settings.obs, settings.size, rows, hyper.batch_size, hyper.batch_length, directory=directory
    )
    stager = Stager(replay, checked_device(settings.device), threaded=False)

    def sample() -> None:
        for _ in range(BATCHES):
            stager.next()

    def close() -> None:
        stager.close()
        replay.close()

    sample()
    inserted = rows / max(sum(inserting.cpu), 1e-9)
    figures = {"insert_rows_per_cpu_s": inserted, "row_bytes": replay.stats()["row_bytes"]}
    return Subject(rows, sample, BATCHES, close, figures)

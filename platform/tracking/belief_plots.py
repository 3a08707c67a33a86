"""Pictures of what the agents of a checkpoint believed, drawn from the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Numbers = Mapping[str, float]
INCHES, DOTS = (6.4, 4.0), 120


@dataclass(frozen=True)
class Spent:
    """An evaluation in which no agent might send more bits than ``budget`` an episode."""

    budget: float | None
    bits: float
    """Sent in an episode by all agents together."""
    returns: tuple[float, ...]
    accuracy: float | None
    """Of all beliefs about targets, where there are any."""


def draw(
    folder: Path, numbers: Numbers, tables: Mapping[str, NDArray[np.float64]], spent: Sequence[Spent] = ()
) -> list[Path]:
    """Write the pictures that there are numbers for: ``calibration``, ``zero_order``, ``first_order``, ``intent`` and
    ``return_by_bits``, each ``.png``.

    ``numbers`` are named as the belief agent's ``measure`` names them, ``tables`` as its ``tables``.
    """
    drawn = []
    pictures: dict[str, Callable[[Path], bool]] = {
        "calibration": lambda path: _calibration(path, tables),
        "zero_order": lambda path: _zero_order(path, numbers),
        "first_order": lambda path: _first_order(path, numbers),
        "intent": lambda path: _intent(path, numbers),
        "return_by_bits": lambda path: _return_by_bits(path, spent),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        if picture(path):
            drawn.append(path)
    return drawn


def _calibration(path: Path, tables: Mapping[str, NDArray[np.float64]]) -> bool:
    """How often a belief is right, by how sure it is; a dot's area is the share of the beliefs."""
    found = {name.removeprefix("calibration/"): t for name, t in tables.items() if name.startswith("calibration/")}
    if not found:
        return False
    with _axes(path, "Are beliefs right as often as they are sure?", "confidence", "accuracy") as axes:
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":", label="calibrated")
        for name, table in found.items():
            sure, right, share = table[table[:, 2] > 0].T
            (line,) = axes.plot(sure, right, linewidth=1, label=name)
            axes.scatter(sure, right, s=12 + 300 * share, color=line.get_color(), alpha=0.6)
        axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.04))
    return True


def _zero_order(path: Path, numbers: Numbers) -> bool:
    marks = {"chance_nll": "a uniform guess", "oracle_nll": "exact inference"}
    title = "Beliefs about the world: nats by which the truth surprises"
    return _bars(path, title, _grouped(numbers, "belief/", ("nll", *marks)), {"nll": "belief"}, marks)


def _first_order(path: Path, numbers: Numbers) -> bool:
    bars = {"nll": "belief about the partner's belief", "copy_nll": "one's own belief in its place"}
    groups = _grouped(numbers, "first_order/", (*bars, "floor"))
    named = {name.replace("/false_belief", "\nwhere it is false"): values for name, values in groups.items()}
    title = "Beliefs about beliefs: nats of the partner's belief under one's own about it"
    return _bars(path, title, named, bars, {"floor": "the partner's belief itself"})


def _intent(path: Path, numbers: Numbers) -> bool:
    bars = {"accuracy": "intent", "marginal_accuracy": "commonest action", "last_action_accuracy": "last action"}
    groups = _grouped(numbers, "intent/", (*bars, "best_accuracy"), within="/policy")
    title = "What a partner does next, of actions sampled from its policy"
    return _bars(path, title, groups, bars, {"best_accuracy": "knowing its policy"}, "accuracy")


def _return_by_bits(path: Path, spent: Sequence[Spent]) -> bool:
    if not spent:
        return False
    ordered = sorted(spent, key=lambda point: point.bits)
    bits = [point.bits for point in ordered]
    with _axes(path, "Return and beliefs by what may be said", "bits sent an episode", "return") as axes:
        means = [float(np.mean(point.returns)) for point in ordered]
        errors = [float(np.std(point.returns)) / len(point.returns) ** 0.5 for point in ordered]
        axes.errorbar(bits, means, yerr=errors, marker="o", capsize=3, label="return (with its standard error)")
        if all(point.accuracy is not None for point in ordered):
            right = axes.twinx()
            right.plot(bits, [point.accuracy for point in ordered], "s--", color="tab:orange", label="accuracy")
            right.set(ylim=(0, 1.04), ylabel="accuracy of beliefs")
            right.spines["top"].set_visible(False)
            axes.plot([], [], "s--", color="tab:orange", label="accuracy of beliefs")
    return True


def _grouped(numbers: Numbers, room: str, wanted: Sequence[str], within: str = "") -> dict[str, dict[str, float]]:
    """Numbers ``<room><group><within>/<name>`` of the ``wanted`` names by group."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in numbers.items():
        group, _, last = name.removeprefix(room).rpartition("/")
        if name.startswith(room) and last in wanted and group.endswith(within):
            groups.setdefault(group.removesuffix(within), {})[last] = value
    return groups


def _bars(
    path: Path,
    title: str,
    groups: Mapping[str, Mapping[str, float]],
    bars: Mapping[str, str],
    marks: Mapping[str, str],
    unit: str = "nats",
) -> bool:
    """Bars side by side for each group, with lines across them."""
    groups = {name: values for name, values in groups.items() if next(iter(bars)) in values}
    if not groups:
        return False
    width = 0.8 / len(bars)
    with _axes(path, title, "", unit) as axes:
        for k, (name, label) in enumerate(bars.items()):
            heights = [values.get(name, float("nan")) for values in groups.values()]
            places = [i - 0.4 + width * (k + 0.5) for i in range(len(groups))]
            patches = axes.bar(places, heights, width, label=label, color=f"C{k}")
            axes.bar_label(patches, fmt="%.3f", fontsize=7)
        for (name, label), style in zip(marks.items(), (":", "-"), strict=False):
            known = [(i, values[name]) for i, values in enumerate(groups.values()) if name in values]
            for n, (i, value) in enumerate(known):
                axes.hlines(value, i - 0.45, i + 0.45, "black", style, linewidth=1, label=None if n else label)
        axes.set_xticks(range(len(groups)), [name.replace("_about_", "\nabout ") for name in groups], fontsize=8)
    return True


@contextmanager
def _axes(path: Path, title: str, across: str, up: str) -> Iterator[Any]:
    """The axes of one picture, which is written at the end."""
    # Without pyplot, which would keep the figure and choose a backend for the whole process.
    figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    yield axes
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(y=0.15)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=min(4, len(labels)))
    figure.savefig(path)

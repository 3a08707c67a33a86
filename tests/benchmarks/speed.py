"""Measure the speed of this machine as the README reports it: one ``oneiros bench`` a process, one JSON file each.

    python tests/benchmarks/speed.py [--only WORD] [--busy]     measure; results/speed-*.json
    python tests/benchmarks/speed.py --table                    what is measured already, as a Markdown table
    python tests/benchmarks/speed.py --cuda --busy --missing --seconds 540 --results DIR      on a GPU, a part at a time

Others must leave the machine alone meanwhile: it waits until they do, unless ``--busy`` is given. What was compiled for
one measurement is thrown away before the next, except where a warm start is what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.platform.tracking.provenance import git_state

RESULTS = Path(__file__).parent / "results"
ONEIROS = Path(sys.executable).parent / "oneiros"
QUIET = 0.5
"""Load average under which a machine counts as quiet."""
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Measurement:
    """One command; ``warm`` runs it twice and keeps what the second says, which finds everything compiled."""

    name: str
    words: str
    warm: bool = False


CPU = [
    Measurement(
        f"update-{size}-{mode}{'-' + precision if precision != 'auto' else ''}{'-warm' if warm else ''}",
        f"update --size {size} --compile {compile} --precision {precision} --updates {updates}",
        warm,
    )
    for size, updates in (("1m", 30), ("12m", 10))
    for precision in ("auto", "float32")
    for mode, compile, warm in (("eager", "off", False), ("compiled", "on", False), ("compiled", "on", True))
    if precision == "auto" or not warm
] + [
    Measurement("update-1m-image-eager", "update --size 1m --obs image --compile off --updates 5"),
    Measurement("against-rllib", "--against rllib --compile on --updates 15"),
    Measurement("act-1m", "act --size 1m --envs 8"),
    Measurement("act-1m-image", "act --size 1m --envs 8 --obs image"),
    Measurement("replay-image", "replay --obs image --size 12m --threads 1"),
    Measurement("replay-state-1m", "replay --obs state --size 1m --threads 1 --rows 100000"),
    Measurement("train-1m", "train --size 1m --train-ratio 32 --seconds 30 --set hyper.compile=off"),
    *(
        Measurement(f"growth-{axis}", f"growth {axis} --compile off")
        for axis in ("batch_size", "batch_length", "imagination_length", "size", "envs", "replay_rows")
    ),
]
CUDA = [
    Measurement(
        f"update-{size}-image-cuda{'' if compile == 'auto' else '-uncompiled'}",
        f"update --size {size} --obs image --device cuda --compile {compile} --updates 50",
    )
    for compile in ("auto", "off")
    for size in ("1m", "12m", "50m", "200m")
]


def measure(measurement: Measurement, busy: bool, results: Path = RESULTS, seconds: float | None = None) -> None:
    """Run the command in a process of its own and keep what it wrote; raises ``TimeoutExpired`` after ``seconds``."""
    while not busy and os.getloadavg()[0] > QUIET:
        time.sleep(5)
    file = result_of(measurement, results)
    unfinished = file.with_suffix(".unfinished")
    with tempfile.TemporaryDirectory() as cache:
        for turn in range(2 if measurement.warm else 1):
            print(f"{measurement.name}{' (again)' if turn else ''}: oneiros bench {measurement.words}", flush=True)
            subprocess.run(
                [ONEIROS, "bench", *measurement.words.split(), "--json", unfinished],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
                check=True,
                timeout=seconds,
            )
    figures = json.loads(unfinished.read_text())
    unfinished.unlink()
    about = {"command": f"oneiros bench {measurement.words}", "commit": _commit()}
    file.write_text(json.dumps({**about, **figures}, indent=2) + "\n")


def _commit() -> str | None:
    """The commit that is measured, None outside a repository."""
    state = git_state(Path(__file__).parent)
    return None if state is None else state["commit"][:7] + (" with changes" if state["changed"] else "")


def result_of(measurement: Measurement, results: Path) -> Path:
    """Where it is kept."""
    return results / f"speed-{measurement.name}.json"


def measure_all(
    wanted: list[Measurement], busy: bool, results: Path, missing: bool, seconds: float | None
) -> list[str]:
    """Measure in turn; ``missing`` leaves out what is there. Returns the names of what failed or had no time left."""
    until = None if seconds is None else time.monotonic() + seconds
    results.mkdir(exist_ok=True, parents=True)
    left = []
    for measurement in wanted:
        if missing and result_of(measurement, results).is_file():
            continue
        remaining = None if until is None else until - time.monotonic()
        if remaining is not None and remaining <= 0:
            left.append(measurement.name)
            continue
        try:
            measure(measurement, busy, results, remaining)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"{measurement.name}: {error}", file=sys.stderr, flush=True)
            left.append(measurement.name)
    return left


def table(results: Path = RESULTS) -> str:
    """The results that there are, in Markdown: medians, with the smallest and the largest; growth beside the first.

    A file that does not say by which command or at which commit it was measured is told as such.
    """
    lines = [
        "| measured | median (smallest to largest) | beside it | command | commit |",
        "|---|---|---|---|---|",
    ]
    for file in sorted(results.glob("speed-*.json")):
        figures = json.loads(file.read_text())
        command = f"`{figures['command']}`" if "command" in figures else UNKNOWN
        cells = [file.stem.removeprefix("speed-"), *_told(figures), command, figures.get("commit") or UNKNOWN]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(figures: dict[str, Any]) -> tuple[str, str]:
    """What was measured, and what goes beside it."""
    if "points" in figures:
        return ", ".join(f"{p['value']}: {p['relative']:.2f}" for p in figures["points"]), figures["bound"]
    if "ratio_to_one_agent" in figures:
        ratios = ", ".join(f"{who}: {ratio:.2f}" for who, ratio in figures["ratio_to_one_agent"].items())
        return ratios, f"batch {figures['batch']} x {figures['length']}"
    if "speedup" in figures:
        ours, theirs = (_spread(figures[who]) for who in ("oneiros", "rllib"))
        return f"{ours}; RLlib {theirs}", f"{figures['speedup']:.1f} times"
    if "env_steps_per_s" in figures:
        return f"{figures['env_steps_per_s']:.0f} env steps/s, {figures['updates_per_s']:.1f} updates/s", ""
    return _spread(figures), _beside(figures)


def _beside(figures: dict[str, Any]) -> str:
    parts = []
    if "startup_s" in figures:
        parts.append(f"start-up {figures['startup_s']:.1f} s")
    if "share_of_ceiling" in figures:
        parts.append(f"{figures['share_of_ceiling']:.0%} of the matrix ceiling")
    if "without_inference" in figures:
        parts.append(f"{_seconds(figures['without_inference']['median_s'])} without inference")
    if "insert_rows_per_s" in figures:
        parts.append(f"{figures['insert_rows_per_s']:,.0f} rows/s inserted")
    return ", ".join(parts)


def _spread(figures: dict[str, Any]) -> str:
    low, high = _seconds(figures["min_s"]), _seconds(figures["max_s"])
    return f"{_seconds(figures['median_s'])} ({low} to {high})"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"


def main() -> None:
    """Measure, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measurements whose names contain this")
    parser.add_argument("--cuda", action="store_true", help="those for a GPU, instead of those for the CPU")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    parser.add_argument("--missing", action="store_true", help="those alone that there are no results of")
    parser.add_argument("--seconds", type=float, help="stop after so many; with --missing the next call goes on")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--table", action="store_true", help="print what is measured already")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    wanted = [m for m in (CUDA if arguments.cuda else CPU) if arguments.only in m.name]
    left = measure_all(wanted, arguments.busy, arguments.results, arguments.missing, arguments.seconds)
    if left:
        sys.exit(f"not measured: {', '.join(left)}")


if __name__ == "__main__":
    main()

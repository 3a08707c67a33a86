"""Keep finished runs as results: one JSON file a task, with what is needed to repeat and to judge them.

    python tests/benchmarks/record.py cartpole runs/cartpole-0 runs/cartpole-1 runs/cartpole-2

writes ``tests/benchmarks/results/cartpole.json``: for each seed the command, configuration, curve (env steps, mean
return of the last 20 training episodes), final evaluation, wall time, machine and versions.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results"
POINTS = 60


def command_of(provenance: dict[str, Any]) -> str:
    """The command as a reader would type it: no paths of the machine that it ran on."""
    words = shlex.split(provenance["command"])
    words = [Path(w).name if "/" in w and Path(w).is_absolute() else w for w in words]
    return shlex.join(words[next(i for i, w in enumerate(words) if w.endswith("oneiros")) :])


def curve_of(run: Path) -> list[dict[str, float]]:
    """At most ``POINTS`` points of the training curve."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [r for r in rows if "return" in r and r["return"] is not None]
    every = max(1, len(rows) // POINTS)
    kept = [*rows[::every], rows[-1]] if rows else []
    start = json.loads((run / "provenance.json").read_text())["created"]
    return [
        {
            "env_steps": r["env_steps"],
            "return": round(r["return"], 3),
            "updates": r["updates"],
            "seconds": round(r["time"] - start, 1),
        }
        for r in kept
    ]


def evaluations_of(run: Path) -> list[dict[str, float]]:
    """The evaluations made during training, the one that ended it among them, and then the ``final`` one."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    alone = [r for r in rows if "evaluation/return_mean" in r and "updates" not in r]
    made = [{"env_steps": r["env_steps"], "return": round(r["evaluation/return_mean"], 3)} for r in alone]
    evaluation = json.loads((run / "evaluation.json").read_text())
    final = {"env_steps": evaluation["env_steps"], "return": round(evaluation["return_mean"], 3)}
    if made and made[-1] == final:
        made.pop()
    return [*made, final | {"final": True}]


def record(run: Path) -> dict[str, Any]:
    """Everything worth keeping of one finished run."""
    provenance = json.loads((run / "provenance.json").read_text())
    evaluation = json.loads((run / "evaluation.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    curve = curve_of(run)
    machine = {k: v for k, v in provenance["machine"].items() if k != "host"}
    return {
        "command": command_of(provenance),
        "seed": config["seed"],
        "env_steps": evaluation["env_steps"],
        "evaluation": {k: evaluation[k] for k in ("episodes", "return_mean", "return_std", "length_mean")}
        | ({"extras": evaluation["extras"]} if evaluation.get("extras") else {}),
        "wall_seconds": curve[-1]["seconds"] if curve else None,
        "curve": curve,
        "evaluations": evaluations_of(run),
        "commit": provenance["git"]["oneiros"]["commit"],
        "machine": machine,
        "versions": provenance["versions"],
        "config": {k: v for k, v in config.items() if k not in ("run_dir", "tracking")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the result file, without .json")
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, one a seed")
    parser.add_argument("--note", default="", help="what a reader must know to judge the numbers")
    arguments = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9-]+", arguments.name):
        parser.error(f"{arguments.name!r} is no name of a result: use lower-case letters, digits and dashes")
    runs = [record(run) for run in arguments.runs]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{arguments.name}.json"
    # What the picture compares with was written by hand.
    known = json.loads(path.read_text()) if path.exists() else {}
    kept = {"references": known["references"]} if "references" in known else {}
    path.write_text(json.dumps({"name": arguments.name, "note": arguments.note, **kept, "runs": runs}, indent=1) + "\n")
    for run in runs:
        print(f"seed {run['seed']}: {run['evaluation']['return_mean']:.1f} after {run['env_steps']} env steps")
    print(path)


if __name__ == "__main__":
    main()

"""Draw the learning curves of recorded results into one picture.

    python tests/benchmarks/plot.py dmc-cartpole-swingup cartpole pendulum catch memory

writes ``tests/benchmarks/results/learning-curves.png``: a panel a task; a line a seed (mean of
the last 20 training episodes), dots its evaluations, dotted lines the given references.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 2.8), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        result = json.loads((RESULTS / f"{name}.json").read_text())
        for run in result["runs"]:
            steps = [p["env_steps"] / 1000 for p in run["curve"]]
            (line,) = axis.plot(steps, [p["return"] for p in run["curve"]], label=f"seed {run['seed']}", linewidth=1.4)
            points = run["evaluations"]
            at = [p["env_steps"] / 1000 for p in points]
            axis.plot(at, [p["return"] for p in points], "o", markersize=3.5, color=line.get_color())
        for label, value in result.get("references", {}).items():
            axis.axhline(value, linestyle=":", color="grey", linewidth=1)
            across = axis.get_yaxis_transform()
            axis.annotate(label, (0.02, value), xycoords=across, fontsize=7, color="grey", va="bottom")
        axis.set_title(result["runs"][0]["config"]["env"], fontsize=10)
        axis.set_xlabel("env steps (thousands)", fontsize=8)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0][0].set_ylabel("return", fontsize=8)
    axes[0][0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(RESULTS / "learning-curves.png", dpi=130)


if __name__ == "__main__":
    main(sys.argv[1:])

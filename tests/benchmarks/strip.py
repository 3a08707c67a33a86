"""Draw what a run's world model sees coming: truth, prediction and error of one replayed sequence, side by side.

    python tests/benchmarks/strip.py runs/catch-0 --key obs --sequence 0

writes ``tests/benchmarks/results/open-loop.png``. The first half of the sequence is filtered from observations, the
second half, right of the white line, is imagined from the actions alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import yaml
from oneiros.platform.config import RunConfig
from oneiros.platform.training.engine import open_engine

RESULTS = Path(__file__).parent / "results"
SEQUENCES = 6


def strip(video: np.ndarray, sequence: int, frames: int, scale: int) -> np.ndarray:
    """``(T, height, 6 * width, 3)`` as one picture of ``frames`` columns, enlarged ``scale`` times."""
    width = video.shape[2] // SEQUENCES
    columns = video[:, :, sequence * width : (sequence + 1) * width]
    chosen = np.linspace(0, len(columns) - 1, min(frames, len(columns))).round().astype(int)
    parts = []
    for index in chosen:
        frame = columns[index].repeat(scale, axis=0).repeat(scale, axis=1)
        edge = index >= len(columns) // 2 and not any(i >= len(columns) // 2 for i in chosen[chosen < index])
        parts += [np.full((frame.shape[0], 3 if edge else 1, 3), 255 if edge else 90, np.uint8), frame]
    return np.concatenate(parts[1:], axis=1)


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--key", default="obs", help="observation key of the images")
    parser.add_argument("--sequence", type=int, default=0, choices=range(SEQUENCES))
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--scale", type=int, default=3)
    arguments = parser.parse_args()
    settings = yaml.safe_load((arguments.run / "config.yaml").read_text())
    settings |= {"engine": "local", "num_runners": 0, "num_learners": 0, "run_dir": None}
    settings["replay"]["on_disk"] = False
    engine = open_engine(RunConfig(**settings))
    try:
        engine.restore(sorted((arguments.run / "checkpoints").iterdir())[-1])
        video = engine.videos()[f"openloop/{arguments.key}"]
    finally:
        engine.close()
    path = RESULTS / "open-loop.png"
    imageio.imwrite(path, strip(video, arguments.sequence, arguments.frames, arguments.scale))
    print(path)


if __name__ == "__main__":
    main()

"""Videos that browsers play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: NDArray[np.uint8], fps: float = 20.0) -> Path:
    """Write ``(T, height, width, 3)`` uint8 frames to ``path``, whose ending (``.mp4``, ``.gif``) chooses the format.

    Small frames are enlarged by whole pixels to a height of at least 128, and padded to even sides, as H.264 needs.
    Raises ``ValueError`` for another shape or dtype.
    """
    import imageio.v3 as imageio

    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"a video is uint8 (T, height, width, 3), not {frames.dtype} {frames.shape}")
    scale = max(1, -(-128 // frames.shape[1]))
    frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        imageio.imwrite(path, frames, duration=1000 / fps, loop=0)
    else:
        # yuv420p is the one pixel format that every browser decodes.
        imageio.imwrite(path, frames, fps=fps, codec="libx264", pixelformat="yuv420p", macro_block_size=1)
    return path

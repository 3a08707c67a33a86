"""Videos that browsers play."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_HEIGHT = 128
# Each frame has a palette of its own: one for the whole film could only be chosen at its end.
PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"


class VideoWriter:
    """Encodes frames as they come, so that a film of any length takes the memory of a few frames.

    The ending of ``path`` (``.mp4``, ``.gif``) chooses the format. The file appears, whole, when the ``with`` block
    ends; it does not where no frame came or the block raised. Small frames are enlarged by whole pixels to a height of
    at least 128, and padded to even sides, as H.264 needs. Raises ``OSError`` where it cannot be written.
    """

    def __init__(self, path: Path, fps: float = 20.0) -> None:
        self.path = path
        self.frames = 0
        """How many came since the last ``restart``."""
        self._fps = fps
        self._partial = path.with_stem(f".{path.stem}.partial")
        self._encoder: Generator[None, Any, None] | None = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append ``(height, width, 3)``, of the same size each; raises ``ValueError`` for another shape or dtype."""
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise ValueError(f"a video's frame is uint8 (height, width, 3), not {frame.dtype} {frame.shape}")
        scale = max(1, -(-LEAST_HEIGHT // frame.shape[0]))
        frame = frame.repeat(scale, axis=0).repeat(scale, axis=1)
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)))
        if self._encoder is None:
            self._encoder = self._open(frame.shape[1], frame.shape[0])
        self._encoder.send(np.ascontiguousarray(frame))
        self.frames += 1

    def restart(self) -> None:
        """Forget all frames so far."""
        self._end()
        self._partial.unlink(missing_ok=True)
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end()
        if kind is not None or not self.frames:
            self._partial.unlink(missing_ok=True)
        elif not self._partial.is_file() or not self._partial.stat().st_size:
            raise OSError(f"the video {self.path} could not be written")
        else:
            self._partial.replace(self.path)

    def _open(self, width: int, height: int) -> Generator[None, Any, None]:
        import imageio_ffmpeg

        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.suffix == ".gif":
            form: dict[str, Any] = {"codec": "gif", "pix_fmt_out": "pal8", "quality": None}
            form |= {"output_params": ["-filter_complex", PALETTES, "-gifflags", "-transdiff"]}
        else:
            # yuv420p is the one pixel format that every browser decodes.
            form = {"codec": "libx264", "pix_fmt_out": "yuv420p"}
        encoder: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            self._partial, (width, height), fps=self._fps, macro_block_size=1, **form
        )
        encoder.send(None)
        return encoder

    def _end(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


def write_video(path: Path, frames: NDArray[np.uint8], fps: float = 20.0) -> Path:
    """Write ``(T, height, width, 3)`` uint8 frames to ``path`` as ``VideoWriter`` does.

    Raises ``ValueError`` for another shape or dtype.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"a video is uint8 (T, height, width, 3), not {frames.dtype} {frames.shape}")
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.add(frame)
    return path

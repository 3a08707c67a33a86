"""What a running training tells about itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.checkpoint import SELF_CHECKED
from oneiros.platform.config import RunConfig
from oneiros.platform.tracking.metrics_file import MetricsFile
from oneiros.platform.tracking.mlflow_run import MlflowRun
from oneiros.platform.tracking.run_directory import RunDirectory
from oneiros.platform.tracking.sender import Outbox, Sender
from oneiros.platform.tracking.system_metrics import SystemMetrics
from oneiros.platform.tracking.video import VideoWriter, write_video

log = logging.getLogger(__name__)


class Tracker:
    """Writes a run's figures and media into its directory and, if MLflow is wanted and installed, to MLflow.

    Every method returns as soon as its file is written. Without MLflow the directory alone is the record, and one
    warning says so.
    """

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self.directory = directory
        self.metrics = MetricsFile(directory.metrics_file)
        self._system = SystemMetrics(directory.path) if config.tracking.system_metrics else None
        self._outbox = Outbox(directory.outbox_file)
        self._media_lost = 0
        self._sender: Sender | None = None
        if config.tracking.mlflow and find_spec("mlflow") is None:
            log.warning("MLflow is not installed: the record is %s alone (pip install mlflow)", directory.metrics_file)
        elif config.tracking.mlflow:
            self._sender = Sender(MlflowRun(directory, config), config.tracking.every_seconds)
            self._sender.start()

    @property
    def uri(self) -> str | None:
        """The MLflow server or store that is written to; None without MLflow."""
        return self._sender.run.uri if self._sender else None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once the store has given one."""
        return self._sender.run.sent.run_id if self._sender and self._sender.run.sent else None

    def record(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Write ``metrics`` as of ``env_steps``, with the machine's own."""
        figures = dict(metrics)
        if self._system is not None:
            figures.update(self._system.sample())
        if self._sender is not None:
            figures["tracking/mlflow_failures"] = float(self._sender.failures)
        figures["tracking/lost_records"] = float(self.metrics.lost + self._media_lost)
        self.metrics.append(figures, env_steps)

    def video(self, name: str, frames: NDArray[np.uint8], env_steps: int, fps: float = 20.0) -> Path:
        """Store ``(T, height, width, 3)`` frames as ``media/<name>/<env_steps>.mp4`` and as an artifact."""
        path = self._film_file(name, env_steps)
        with self._surviving_a_full_disk():
            write_video(path, frames, fps)
            self.artifact(path, f"media/{name}")
        return path

    @contextmanager
    def film(self, name: str, env_steps: int, fps: float = 20.0) -> Iterator[VideoWriter]:
        """What ``video`` does, for frames that come one by one; without any, there is no file."""
        path = self._film_file(name, env_steps)
        with self._surviving_a_full_disk():
            with VideoWriter(path, fps) as film:
                yield film
            if film.frames:
                self.artifact(path, f"media/{name}")

    def artifact(self, path: Path, folder: str = "") -> None:
        """Have a file, or a folder's content, stored with the MLflow run."""
        if self._sender is not None:
            with self._surviving_a_full_disk():
                self._outbox.artifact(path, folder)

    def checkpoint(self, directory: Path) -> None:
        """Have a checkpoint stored as ``checkpoint/``, without its experience: ``--from`` takes it as it is."""
        for path in sorted(directory.rglob("*")):
            place = path.relative_to(directory)
            if path.is_file() and SELF_CHECKED not in place.parts:
                self.artifact(path, (Path("checkpoint") / place.parent).as_posix())

    def policy(self, folder: Path, score: float | None = None) -> None:
        """Have a policy folder logged as a model of the MLflow run, and registered."""
        if self._sender is not None:
            with self._surviving_a_full_disk():
                self._outbox.policy(folder, score)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the MLflow run."""
        if self._sender is not None:
            with self._surviving_a_full_disk():
                self._outbox.tags(tags)

    def close(self, status: str = "FINISHED", timeout: float = 30.0) -> bool:
        """Send what is left, for at most ``timeout`` seconds; ``status`` is ``FINISHED``, ``KILLED`` or ``FAILED``.

        Returns whether MLflow was told everything (True when there is no MLflow to tell). What it was not told is
        sent when the run is resumed or by ``oneiros runs --send``.
        """
        if self._sender is None:
            return True
        if self._sender.close(status, timeout):
            return True
        log.warning(
            "MLflow at %s was not told everything: 'oneiros runs --send %s' sends the rest",
            self._sender.run.uri,
            self.directory.path,
        )
        return False

    def _film_file(self, name: str, env_steps: int) -> Path:
        return self.directory.media / name / f"{env_steps:012d}.mp4"

    @contextmanager
    def _surviving_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._media_lost += 1
            if self._media_lost == 1:
                log.warning("%s cannot be written to (%s); training goes on", self.directory.path, error)

"""One trial of a sweep: a whole training with a run directory of its own, as Ray Tune's ``Trainable``."""

from __future__ import annotations

import math
import queue
import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oneiros.platform.checkpoint import CheckpointError, read_manifest
from oneiros.platform.cli.drive import Outcome
from oneiros.platform.cli.interruption import Interruption
from oneiros.platform.cli.training import conduct
from oneiros.platform.config import Layer, Resolved, resolve
from oneiros.platform.tracking import RunDirectory, Tracker, provenance
from ray import tune

ORIGIN = "the sweep"
SECONDS_TO_SAVE = 300.0


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep have in common."""

    layers: tuple[Layer, ...]
    folder: Path
    """Holds a run directory for each trial."""
    metric: str
    tracking_uri: str | None
    parent_run: str | None

    def resolve(self, values: Mapping[str, Any], name: str) -> Resolved:
        """Return the configuration of the trial with these values; raises ``ConfigError``."""
        own: dict[str, Any] = {"run_dir": str(self.folder / name), "tracking.run_name": name}
        if self.tracking_uri is not None:
            own["tracking.uri"] = self.tracking_uri
        if self.parent_run is not None:
            own["tracking.parent_run"] = self.parent_run
        return resolve([*self.layers, Layer(ORIGIN, dict(values)), Layer(ORIGIN, own)])


class Reports:
    """Where a training tells how far it is: a ``Display`` whose viewer is Ray Tune. Only the newest figures wait."""

    def __init__(self, metric: str) -> None:
        self.queue: queue.Queue[dict[str, Any] | Outcome | BaseException] = queue.Queue()
        self.known: dict[str, Any] = {}
        self._metric = metric
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def update(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """See ``Display``. Before the metric is known there is nothing to compare trials by."""
        with self._lock:
            self.known.update(metrics, env_steps=env_steps)
            if self._metric in self.known and self.queue.empty():
                self.queue.put(dict(self.known))


class Trial(tune.Trainable):
    """Drives a training on a thread of its own, and hands its figures to Tune one after the other.

    A trial that Tune ends early saves a checkpoint first. One that is started again, because its host was lost, goes on
    from its newest checkpoint if the folder is on a disk that the hosts share.
    """

    def setup(self, config: dict[str, Any], plan: Plan | None = None) -> None:
        """See Ray Tune: ``config`` holds this trial's values."""
        assert plan is not None
        self._interruption = Interruption(lambda text: None)
        self._metric = plan.metric
        self._reports = Reports(plan.metric)
        resolved = plan.resolve(config, run_name(str(self.trial_id)))
        self._run, checkpoint = _run_directory(resolved)
        self._thread = threading.Thread(target=self._train, args=(resolved, checkpoint), name="training", daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """Wait for the training's next figures and return them; raises what the training raises."""
        item = self._reports.queue.get()
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Outcome):
            figures = {**self._reports.known, "env_steps": item.env_steps, "done": True, "reason": item.reason}
            if item.evaluation is not None:
                figures |= {f"evaluation/{name}": value for name, value in item.evaluation.metrics().items()}
            figures.setdefault(self._metric, math.nan)
            return {**figures, "run_dir": str(self._run.path)}
        return {**item, "run_dir": str(self._run.path)}

    def cleanup(self) -> None:
        """Interrupt the training as Ctrl-C would, and wait until it has saved."""
        self._interruption.signal = signal.SIGTERM
        self._thread.join(SECONDS_TO_SAVE)

    def _train(self, resolved: Resolved, checkpoint: Path | None) -> None:
        """Train, and say what came of it whatever it is: Tune waits for a word."""
        try:
            outcome: Outcome | BaseException = self._drive(resolved, checkpoint)
        except BaseException as error:
            outcome = error
        self._reports.queue.put(outcome)

    def _drive(self, resolved: Resolved, checkpoint: Path | None) -> Outcome:
        config, reports, interruption = resolved.config, self._reports, self._interruption
        return conduct(self._run, config, checkpoint, Tracker(self._run, config), reports, interruption, _nothing)


def _nothing(text: str) -> None:
    """What a trial says besides its reports."""


def run_name(trial_id: str) -> str:
    """The name of a trial's run directory, by Tune's name of the trial, which ends in its number."""
    return f"trial-{trial_id.rpartition('_')[2]}"


def _run_directory(resolved: Resolved) -> tuple[RunDirectory, Path | None]:
    """The trial's directory, new, or as an attempt that broke off left it, with the checkpoint to go on from."""
    run = RunDirectory(resolved.config.directory)
    if not run.config_file.exists():
        return RunDirectory.create(resolved, provenance()), None
    try:
        checkpoint = run.store().latest()
    except CheckpointError:
        shutil.rmtree(run.path)
        return RunDirectory.create(resolved, provenance()), None
    run.resume(resolved.config, provenance(), read_manifest(checkpoint).env_steps)
    return run, checkpoint

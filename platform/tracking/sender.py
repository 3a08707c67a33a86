"""Brings what a run wrote down to MLflow, from a thread of its own, now or later."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneiros.platform.config import ConfigError
from oneiros.platform.tracking.line_file import LineFile, parse
from oneiros.platform.tracking.metrics_file import read_metrics
from oneiros.platform.tracking.mlflow_run import MlflowRun, last_sent
from oneiros.platform.tracking.run_directory import RunDirectory
from oneiros.platform.tracking.telling import Telling

log = logging.getLogger(__name__)

ROWS_A_BATCH = 100
LONGEST_WAIT = 60.0
RETAKEN = "oneiros.retaken_steps"
"""The tag that says which env steps were taken again, and are in MLflow as they were the first time."""
LONGEST_TAG = 5000

# Answers that will be the same however often the same thing is sent.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "PERMISSION_DENIED"})


class Outbox:
    """Artifacts and tags to be sent, as lines in a file: the queue is the disk, so it is bounded and survives."""

    def __init__(self, path: Path) -> None:
        self.lines = LineFile(path)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ask for the file, or the folder's content, to be stored under ``folder``."""
        self.lines.append(json.dumps({"artifact": str(path.resolve()), "folder": folder}))

    def policy(self, folder: Path, score: float | None) -> None:
        """Ask for a policy folder to be logged as a model and registered."""
        self.lines.append(json.dumps({"policy": str(folder.resolve()), "score": score}))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Ask for ``tags`` to be set."""
        self.lines.append(json.dumps({"tags": dict(tags)}))


class Sender:
    """A thread that follows ``metrics.jsonl`` and ``outbox.jsonl`` and sends what is new, in order.

    Training only ever appends to those files, so no state of the server can slow it. Failures are counted in
    ``failures``, logged once until the server is back, and tried again after ever longer waits. What MLflow refuses
    for good (an artifact too large, a row it cannot hold) is counted in ``refused``, logged once, and passed over.

    Steps that a run took again after it was killed are told once (``Telling``); which they are is a tag of the run.
    """

    def __init__(self, run: MlflowRun, every_seconds: float = 5.0) -> None:
        self.run = run
        self.failures = 0
        self.refused = 0
        self._every = every_seconds
        self._metrics = LineFile(run.directory.metrics_file)
        self._outbox = LineFile(run.directory.outbox_file)
        self._telling: Telling | None = None
        self._tagged = 0
        self._away = False
        self._wake = threading.Event()
        self._status: str | None = None
        self._deadline = float("inf")
        self._drained = False
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def close(self, status: str, timeout: float) -> bool:
        """Send the rest and set the run's status, for at most ``timeout`` seconds; True when all was sent."""
        self._deadline = time.monotonic() + timeout
        self._status = status
        self._wake.set()
        self._thread.join(timeout)
        return self._drained

    def _work(self) -> None:
        wait = self._every
        while True:
            status = self._status
            try:
                self._send_all()
                if status is not None:
                    self.run.finish(status)
                    self._drained = True
                    return
                self._came_back()
                wait = self._every
            except Exception as error:
                self._failed(error)
                wait = min(2 * wait, LONGEST_WAIT)
                if self._status is not None:
                    if time.monotonic() >= self._deadline:
                        return
                    wait = min(wait, 1.0)
            self._wake.wait(wait)
            self._wake.clear()

    def _send_all(self) -> None:
        self.run.connect()
        while self._send_rows() or self._send_entry():
            pass

    def _send_rows(self) -> bool:
        sent = self.run.sent
        assert sent is not None
        if self._telling is None or self._telling.offset != sent.metrics:
            # The first time, or for another MLflow run than before.
            self._telling, self._tagged = Telling(self._metrics, sent.metrics), 0
        telling = self._telling
        rows, offset = telling.batch(ROWS_A_BATCH)
        if offset == sent.metrics:
            telling.was_told()
            return False
        self._try(lambda: self.run.log_rows(rows), f"{len(rows)} rows of metrics")
        if len(telling.retaken) > self._tagged:
            self._try(lambda: self.run.set_tags({RETAKEN: ", ".join(telling.retaken)[:LONGEST_TAG]}), "a tag")
            self._tagged = len(telling.retaken)
        self.run.progress(metrics=offset)
        telling.was_told()
        return True

    def _send_entry(self) -> bool:
        sent = self.run.sent
        assert sent is not None
        for text, end in self._outbox.read(sent.outbox, 1):
            entry = parse(text)
            if entry is not None and "tags" in entry:
                self._try(lambda entry=entry: self.run.set_tags(entry["tags"]), "tags")
            elif entry is not None and "policy" in entry:
                if Path(entry["policy"]).exists():
                    self._try(
                        lambda entry=entry: self.run.log_policy(Path(entry["policy"]), entry["score"]), entry["policy"]
                    )
            elif entry is not None and Path(entry["artifact"]).exists():
                self._try(
                    lambda entry=entry: self.run.upload(Path(entry["artifact"]), entry["folder"]), entry["artifact"]
                )
            self.run.progress(outbox=end)
            return True
        return False

    def _try(self, send: Any, what: str) -> None:
        """Send, or learn that this will never be taken; other failures are the caller's to try again."""
        from mlflow.exceptions import MlflowException

        try:
            send()
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self.refused += 1
            if self.refused == 1:
                log.warning("MLflow at %s refuses %s: %s; it is left out", self.run.uri, what, error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self._away:
            self._away = True
            log.warning(
                "MLflow at %s cannot be reached (%s); training goes on, and what it should have is sent later",
                self.run.uri,
                str(error).partition("\n")[0][:200] or type(error).__name__,
            )

    def _came_back(self) -> None:
        if self._away:
            self._away = False
            log.warning("MLflow at %s is back and has been sent what it missed", self.run.uri)


def unsent_bytes(directory: RunDirectory) -> int:
    """Bytes of metrics and requests that MLflow was not told of; 0 for a run that is not for MLflow."""
    try:
        if not directory.config().tracking.mlflow:
            return 0
    except ConfigError:
        return 0
    sent = last_sent(directory)
    total = LineFile(directory.metrics_file).size() + LineFile(directory.outbox_file).size()
    return total - (sent.metrics + sent.outbox if sent else 0)


def catch_up(directory: RunDirectory, timeout: float) -> bool:
    """Send what the store of a run that has ended missed, for at most ``timeout`` seconds; True when nothing is left.

    The MLflow run ends as ``FINISHED`` if it has taken its env steps, else as ``KILLED``.
    """
    if unsent_bytes(directory) == 0:
        return True
    config = directory.config()
    rows = read_metrics(directory.metrics_file) if directory.metrics_file.exists() else []
    finished = bool(rows) and rows[-1]["env_steps"] >= config.env_steps
    sender = Sender(MlflowRun(directory, config))
    sender.start()
    return sender.close("FINISHED" if finished else "KILLED", timeout)

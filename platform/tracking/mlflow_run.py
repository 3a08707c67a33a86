"""One MLflow run: found or made, fed in batches. Everything here talks to the store and may take its time."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiros.platform.config import RunConfig
from oneiros.platform.tracking.run_directory import RunDirectory, write_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
LONGEST_PARAM = 6000
NO_REGISTRY = ("FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED", "BAD_REQUEST")
log = logging.getLogger(__name__)
# MLflow's page shows an experiment of this kind as trainings, with their curves, rather than as traces of chats.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_ALLOWED = frozenset("_-. :/")


@dataclass
class Sent:
    """What a store was told so far: kept in the run directory, so a later process goes on from there."""

    uri: str
    experiment: str
    run_id: str
    metrics: int = 0
    """Byte of ``metrics.jsonl`` up to which rows were sent."""
    outbox: int = 0
    """Byte of ``outbox.jsonl`` up to which entries were sent."""


def last_sent(directory: RunDirectory) -> Sent | None:
    """What the run's store was told so far; None when there was none yet."""
    try:
        return Sent(**json.loads(directory.mlflow_file.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def tracking_uri(config: RunConfig) -> str:
    """Where the run is recorded: the configuration's ``uri``, ``MLFLOW_TRACKING_URI``, else SQLite beside the run."""
    named = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{config.directory.resolve().parent / 'mlflow.db'}"


class MlflowRun:
    """The MLflow run that belongs to a run directory."""

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self.directory = directory
        self.config = config
        self.uri = tracking_uri(config)
        self.sent: Sent | None = None
        self._client: MlflowClient | None = None

    def connect(self) -> None:
        """Import MLflow, open the store (which makes its tables when it is new), and find or make the run."""
        if self._client is None:
            self._client = self.open()
        if self.sent is None:
            self.sent = self._find() or self._make()
            self._save()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set ``tags`` on the run."""
        from mlflow.entities import RunTag

        client, sent = self._connected()
        client.log_batch(sent.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def upload(self, path: Path, folder: str) -> None:
        """Store a file, or a folder's content, as an artifact under ``folder``."""
        client, sent = self._connected()
        if path.is_dir():
            client.log_artifacts(sent.run_id, str(path), folder or None)
        else:
            client.log_artifact(sent.run_id, str(path), folder or None)

    def log_policy(self, folder: Path, score: float | None) -> None:
        """Log a policy folder as a model of the run, and register it; a store without a registry keeps the model."""
        from mlflow.exceptions import MlflowException
        from oneiros.platform.export.mlflow_model import log_model, register, registered_name

        client, sent = self._connected()
        logged = log_model(client, sent.run_id, folder)
        name = registered_name(self.config.tracking.experiment, self.config.env, self.config.agent)
        try:
            version = register(client, logged, name, score)
        except MlflowException as error:
            if error.error_code not in NO_REGISTRY:
                raise
            log.warning("MLflow at %s does not register the model %s: %s", self.uri, logged.model_id, error)
        else:
            self.set_tags({"oneiros.model": f"models:/{name}/{version}"})

    def log_rows(self, rows: list[dict[str, Any]]) -> None:
        """Send rows of ``metrics.jsonl`` in as few requests as MLflow allows."""
        client, sent = self._connected()
        metrics = [metric for row in rows for metric in _metrics(row)]
        for start in range(0, len(metrics), METRICS_A_BATCH):
            client.log_batch(sent.run_id, metrics=metrics[start : start + METRICS_A_BATCH])

    def progress(self, metrics: int | None = None, outbox: int | None = None) -> None:
        """Remember that the files were sent up to these bytes."""
        _, sent = self._connected()
        sent.metrics = sent.metrics if metrics is None else metrics
        sent.outbox = sent.outbox if outbox is None else outbox
        self._save()

    def finish(self, status: str) -> None:
        """Set the run's status: ``FINISHED``, ``KILLED`` or ``FAILED``."""
        client, sent = self._connected()
        client.set_terminated(sent.run_id, status)

    def open(self) -> MlflowClient:
        """Open the store, which makes its tables when it is new."""
        # A server that is away must cost one short attempt: the sender tries again by itself.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        # They tell of every table made and, with a traceback, of every failed attempt; the sender speaks for them.
        for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
            logging.getLogger(chatty).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        if not self.uri.startswith("sqlite:///"):
            return MlflowClient(self.uri)
        # Two runs that start together must not both make the tables.
        from filelock import FileLock

        file = Path(self.uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            client = MlflowClient(self.uri)
            client.get_experiment_by_name(self.config.tracking.experiment)
        return client

    def _find(self) -> Sent | None:
        """The run that an earlier process made in this store, if the store still has it."""
        from mlflow.exceptions import MlflowException

        sent = last_sent(self.directory)
        if sent is None or (sent.uri, sent.experiment) != (self.uri, self.config.tracking.experiment):
            return None
        assert self._client is not None
        try:
            run = self._client.get_run(sent.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(sent.run_id, status="RUNNING")
        return sent

    def _make(self) -> Sent:
        from mlflow.entities import Param

        client = self._client
        assert client is not None
        tracking = self.config.tracking
        run = client.create_run(
            self._experiment(client),
            run_name=tracking.run_name or self.directory.path.resolve().name,
            tags=self._tags(),
        )
        run_id: str = run.info.run_id
        params = [Param(name, value[:LONGEST_PARAM]) for name, value in flatten(self.config.to_dict())]
        for start in range(0, len(params), PARAMS_A_BATCH):
            client.log_batch(run_id, params=params[start : start + PARAMS_A_BATCH])
        for file in (self.directory.config_file, self.directory.provenance_file):
            if file.exists():
                client.log_artifact(run_id, str(file))
        return Sent(self.uri, tracking.experiment, run_id)

    def _experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        name = self.config.tracking.experiment
        place = None
        if self.uri.startswith("sqlite:///"):
            place = (Path(self.uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(name)
        assert found is not None
        return str(found.experiment_id)

    def _tags(self) -> dict[str, str]:
        config = self.config
        tags = {"oneiros.env": config.env, "oneiros.agent": config.agent, "oneiros.run_dir": str(config.directory)}
        try:
            origin = json.loads(self.directory.provenance_file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            origin = {}
        if commit := origin.get("git", {}).get("oneiros", {}).get("commit"):
            tags["mlflow.source.git.commit"] = commit
        if command := origin.get("command"):
            tags["mlflow.source.name"] = command
        if config.tracking.parent_run:
            tags["mlflow.parentRunId"] = config.tracking.parent_run
        return {**tags, **config.tracking.tags}

    def _connected(self) -> tuple[MlflowClient, Sent]:
        assert self._client is not None and self.sent is not None, "connect comes first"
        return self._client, self.sent

    def _save(self) -> None:
        assert self.sent is not None
        write_whole(self.directory.mlflow_file, json.dumps(asdict(self.sent), indent=2) + "\n")


def amend(
    directory: RunDirectory,
    config: RunConfig,
    metrics: Mapping[str, float],
    files: Mapping[Path, str],
    env_steps: int,
) -> str | None:
    """Add metrics as of ``env_steps``, and files under their folders, to the MLflow run that training made.

    Its status, and what training has sent of it so far, stay as they are: training may be under way. Returns the
    store, or None if that has no such run; raises what MLflow raises.
    """
    from mlflow.exceptions import MlflowException

    sent = last_sent(directory)
    run = MlflowRun(directory, config)
    if sent is None or (sent.uri, sent.experiment) != (run.uri, config.tracking.experiment):
        return None
    client = run.open()
    try:
        if client.get_run(sent.run_id).info.lifecycle_stage == "deleted":
            return None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    rows = list(_metrics({**metrics, "time": time.time(), "env_steps": env_steps}))
    for start in range(0, len(rows), METRICS_A_BATCH):
        client.log_batch(sent.run_id, metrics=rows[start : start + METRICS_A_BATCH])
    for path, folder in files.items():
        client.log_artifact(sent.run_id, str(path), folder)
    return run.uri


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as MLflow's parameters: dotted names, values as text."""
    for name, value in values.items():
        key = prefix + metric_name(str(name))
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{key}.")
        else:
            yield key, value if isinstance(value, str) else json.dumps(value)


def metric_name(name: str) -> str:
    """``name`` with what MLflow does not accept replaced."""
    return "".join(letter if letter.isalnum() or letter in _ALLOWED else "_" for letter in name)


def _metrics(row: Mapping[str, Any]) -> Iterator[Metric]:
    from mlflow.entities import Metric

    when, step = int(row["time"] * 1000), row["env_steps"]
    for name, value in row.items():
        if name not in ("time", "env_steps"):
            yield Metric(metric_name(name), float("nan") if value is None else float(value), when, step)

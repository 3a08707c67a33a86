"""Where everything about one run lies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from oneiros.platform.checkpoint import CheckpointStore, Retention
from oneiros.platform.config import ConfigError, Resolved, RunConfig
from oneiros.platform.config.errors import explain
from oneiros.platform.config.sources import read_yaml
from oneiros.platform.tracking.metrics_file import MetricsFile
from pydantic import ValidationError

RUNS = Path("runs")


class RunDirectory:
    """One run's folder.

    ``config.yaml`` (the effective configuration), ``provenance.json``, ``metrics.jsonl``, ``evaluation.json``,
    ``outcome.json`` (how it ended, once nothing is left to evaluate or export), ``checkpoints/``, ``replay/``,
    ``policy/`` (the last one, exported), ``media/`` (videos and images), ``outbox.jsonl`` and ``mlflow.json`` (what
    MLflow is still to be told, and what it was).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.provenance_file = path / "provenance.json"
        self.metrics_file = path / "metrics.jsonl"
        self.evaluation_file = path / "evaluation.json"
        self.outcome_file = path / "outcome.json"
        self.checkpoints = path / "checkpoints"
        self.replay = path / "replay"
        self.policy = path / "policy"
        self.media = path / "media"
        self.outbox_file = path / "outbox.jsonl"
        self.mlflow_file = path / "mlflow.json"

    @classmethod
    def create(cls, resolved: Resolved, provenance: Mapping[str, Any]) -> RunDirectory:
        """Make the folder of a new run and write down what the run is.

        Raises ``ConfigError`` when it already holds a run, or cannot be made.
        """
        run = cls(resolved.config.directory)
        if run.config_file.exists():
            raise ConfigError(
                f"{run.path} already holds a run: continue it with 'oneiros resume {run.path}', "
                "or choose another --run-dir."
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.provenance_file.write_text(json.dumps({**provenance, "origins": resolved.origins}, indent=2) + "\n")
            run.write_config(resolved.config)
        except OSError as error:
            raise ConfigError(f"run directory {run.path} cannot be made: {error}.") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run's folder; raises ``ConfigError`` when ``path`` is none."""
        run = cls(path)
        if not run.config_file.is_file():
            reason = "it has no config.yaml" if path.is_dir() else "there is no such folder"
            raise ConfigError(f"{path} is no run directory: {reason} (oneiros runs lists the runs here).")
        return run

    def resume(self, config: RunConfig, provenance: Mapping[str, Any], env_steps: int) -> None:
        """Write down that the run goes on from ``env_steps``, by whom, and with which configuration.

        Figures of steps beyond, which will be taken again, count no more.
        """
        try:
            before = json.loads(self.provenance_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            before = {}
        resumed = [*before.get("resumed", []), {**provenance, "env_steps": env_steps}]
        write_whole(self.provenance_file, json.dumps({**before, "resumed": resumed}, indent=2) + "\n")
        self.write_config(config)
        self.outcome_file.unlink(missing_ok=True)
        MetricsFile(self.metrics_file).append({}, env_steps)

    def write_config(self, config: RunConfig) -> None:
        """Replace the effective configuration, whole or not at all."""
        write_whole(self.config_file, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))

    def config(self) -> RunConfig:
        """The effective configuration, at wherever the folder lies now; raises ``ConfigError`` when it is damaged."""
        values = read_yaml(self.config_file)
        try:
            return RunConfig(**{**values, "run_dir": str(self.path)})
        except ValidationError as error:
            raise ConfigError(f"{self.config_file}: {explain(error)}") from error

    def store(self, keep: int = 2) -> CheckpointStore:
        """The run's checkpoints, of which the ``keep`` newest and the best stay."""
        return CheckpointStore(self.checkpoints, Retention(last=keep, best=1))

    def find_checkpoint(self, which: str = "latest") -> Path:
        """The checkpoint called ``latest``, ``best``, by its env steps, or by its path.

        Raises ``ConfigError`` naming those that there are, or ``CheckpointError`` when none is sound.
        """
        store = self.store()
        if which == "latest":
            return store.latest()
        if which == "best":
            return store.best()
        path = store.path(int(which)) if which.isdigit() else Path(which)
        if not path.is_dir():
            steps = [str(manifest.env_steps) for _, manifest in store.checkpoints()]
            raise ConfigError(f"checkpoint {which!r} is unknown: choose latest, best, {', '.join(steps)}, or a path.")
        return path

    def write_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Replace the figures of the last evaluation."""
        write_whole(self.evaluation_file, json.dumps(dict(figures), indent=2) + "\n")

    def conclude(self, reason: str, env_steps: int) -> None:
        """Write down how the run ended, and that nothing is left to do for it."""
        write_whole(self.outcome_file, json.dumps({"reason": reason, "env_steps": env_steps}, indent=2) + "\n")

    @property
    def concluded(self) -> bool:
        """Whether nothing is left to do but more training."""
        return self.outcome_file.is_file()


def default_path(env: str, agent: str, runs: Path = RUNS) -> Path:
    """A folder under ``runs`` that does not exist yet, named by environment, algorithm and time."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{env}-{agent}").strip("_")
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, copy = runs / stem, 1
    while path.exists():
        copy += 1
        path = runs / f"{stem}-{copy}"
    return path


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a crash, sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)

"""Starting an engine, driving it to its end, and telling the user what came of it: train, resume and demo alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.platform.cli.beginning import begin
from oneiros.platform.cli.drive import Drive, Outcome
from oneiros.platform.cli.interruption import Interruption
from oneiros.platform.cli.output import console, duration, notes
from oneiros.platform.cli.progress import Display, display
from oneiros.platform.config import Resolved, RunConfig
from oneiros.platform.tracking import RunDirectory, Tracker, provenance
from oneiros.platform.tracking.run_directory import default_path


@dataclass(frozen=True)
class Trained:
    """What a command can say about a finished training."""

    run: RunDirectory
    outcome: Outcome
    exit_code: int
    mlflow_uri: str | None

    def figures(self) -> dict[str, Any]:
        """For ``--json``."""
        outcome = self.outcome
        return {
            "run_dir": str(self.run.path),
            "reason": outcome.reason,
            "env_steps": outcome.env_steps,
            "seconds": round(outcome.seconds, 3),
            "checkpoint": str(outcome.checkpoint) if outcome.checkpoint else None,
            "evaluation": outcome.evaluation.summary() if outcome.evaluation else None,
        }


def start(resolved: Resolved) -> Trained:
    """Train a new run in its directory."""
    config = resolved.config
    if config.run_dir is None:
        config = config.model_copy(update={"run_dir": default_path(config.env, config.agent)})
        resolved = Resolved(config, resolved.algorithm, resolved.origins, resolved.preset)
    run = RunDirectory.create(resolved, provenance())
    if resolved.preset is not None:
        choice = resolved.preset
        notes.print(f"Preset {choice.name} ({choice.preset.description.rstrip('.')}): {choice.reason}.")
    notes.print(f"Run directory {run.path}")
    return train(run, config, None)


def train(run: RunDirectory, config: RunConfig, checkpoint: Path | None) -> Trained:
    """Train in ``run``, from ``checkpoint`` if one is given, to the end that ``config`` sets or to a signal."""
    # Processes of a cluster work in other directories.
    config = config.model_copy(update={"run_dir": run.path.resolve()})
    with Interruption(notes.print) as interruption:
        tracker = Tracker(run, config)
        if checkpoint is not None:
            for file in (run.config_file, run.provenance_file):
                tracker.artifact(file)
        shown = display(notes, config.env_steps)
        outcome = conduct(
            run, config, checkpoint, tracker, shown, interruption, notes.print, ready=interruption.install
        )
    return Trained(run, outcome, interruption.exit_code, tracker.uri)


def conduct(
    run: RunDirectory,
    config: RunConfig,
    checkpoint: Path | None,
    tracker: Tracker,
    shown: Display,
    interruption: Interruption,
    say: Callable[[str], None],
    ready: Callable[[], None] = lambda: None,
) -> Outcome:
    """Open the run's engine, go on from ``checkpoint`` or begin, drive to the end, and close engine and ``tracker``.

    ``ready`` is called once there is an engine.
    """
    from oneiros.platform.training.engine import open_engine

    status = "FAILED"
    engine = None
    try:
        engine = open_engine(config)
        ready()
        if checkpoint is not None:
            engine.restore(checkpoint.resolve())
        else:
            begin(engine, config, say)
        drive = Drive(engine, run, config, tracker, shown, interruption, say, checkpoint)
        try:
            outcome = drive.run()
        except Exception:
            if drive.checkpoint is not None:
                say(f"The run failed. Go on from {drive.checkpoint} with: oneiros resume {run.path}")
            raise
        status = "KILLED" if outcome.reason == "interrupted" else "FINISHED"
        return outcome
    finally:
        if engine is not None:
            engine.close()
        tracker.close(status)


def tell(trained: Trained) -> None:
    """Print how the training ended, where its checkpoint lies, and how to go on."""
    outcome, run = trained.outcome, trained.run
    console.print(f"{outcome.env_steps:,} env steps in {duration(outcome.seconds)}: {outcome.reason}.")
    if outcome.evaluation is not None:
        console.print(describe(outcome.evaluation.summary()))
    if outcome.checkpoint is not None:
        console.print(f"Checkpoint {outcome.checkpoint}")
    if outcome.reason == "interrupted":
        console.print(f"Go on with: oneiros resume {run.path}")
    if trained.mlflow_uri is not None:
        console.print(how_to_look(trained.mlflow_uri))


def describe(evaluation: dict[str, Any]) -> str:
    """An evaluation in one line, and one for each share of episodes that it knows the 95% interval of."""
    first = (
        f"Evaluation over {evaluation['episodes']} episodes: return {evaluation['return_mean']:.1f} "
        f"± {evaluation['return_std']:.1f}, length {evaluation['length_mean']:.1f}."
    )
    shares = [
        f"  {name}: {evaluation['extras'][name]:.0%} of episodes ({low:.0%} to {high:.0%})"
        for name, (low, high) in evaluation.get("intervals", {}).items()
    ]
    return "\n".join([first, *shares])


def how_to_look(uri: str) -> str:
    """How to open the MLflow page of a store."""
    if uri.startswith(("http://", "https://")):
        return f"MLflow page {uri}"
    return f"MLflow page: mlflow ui --backend-store-uri {uri}"


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object in a file; None when there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return values if isinstance(values, dict) else None

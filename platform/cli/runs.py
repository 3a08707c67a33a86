"""``oneiros runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import options as o

HERE = Path("runs")
"""Where runs lie unless they are told otherwise."""


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs, or one run's directory.")] = HERE,
    send: Annotated[bool, typer.Option("--send", help="Send MLflow what it has missed of these runs.")] = False,
    json: o.Json = None,
) -> int:
    """List the runs under a folder: how far each is, its return, and whether MLflow knows it all."""
    from oneiros.platform.cli.output import console, table, write_json
    from oneiros.platform.config import ConfigError
    from oneiros.platform.tracking import RunDirectory

    if not folder.is_dir() and folder != HERE:
        raise ConfigError(f"{folder} is no folder: 'oneiros runs FOLDER' lists the runs under FOLDER.")
    found = [RunDirectory(path) for path in _run_directories(folder)]
    complete = [_send(run) for run in found] if send else []
    rows = [_describe(run) for run in found]
    console.print(
        table(
            ["run", "env", "agent", "seed", "env steps", "return", "evaluation", "unsent", "changed"],
            [
                (
                    row["run_dir"],
                    row["env"],
                    row["agent"],
                    row["seed"],
                    f"{row['env_steps'] or 0:,}/{row['env_steps_planned'] or 0:,}",
                    _number(row["return"]),
                    _number(row["evaluation"]),
                    f"{row['unsent_bytes']} B" if row["unsent_bytes"] else "",
                    row["changed"] or row["error"],
                )
                for row in rows
            ],
        )
        if rows
        else f"No runs under {folder}."
    )
    write_json(json, rows)
    return 0 if all(complete) else 1


def _run_directories(folder: Path) -> list[Path]:
    """Folders that hold a run; MLflow's artifacts hold copies of the same files."""
    if (folder / "config.yaml").is_file():
        return [folder]
    found = sorted(file.parent for file in folder.rglob("config.yaml") if (file.parent / "provenance.json").is_file())
    return [path for path in found if not {"mlartifacts", "mlruns"} & set(path.parts)]


def _describe(run: Any) -> dict[str, Any]:
    from datetime import datetime

    from oneiros.platform.cli.training import read_json
    from oneiros.platform.config import ConfigError
    from oneiros.platform.tracking import read_metrics
    from oneiros.platform.tracking.sender import unsent_bytes

    row: dict[str, Any] = dict.fromkeys(
        ("env", "agent", "seed", "env_steps", "env_steps_planned", "return", "evaluation", "changed", "error")
    )
    row["run_dir"] = str(run.path)
    row["unsent_bytes"] = unsent_bytes(run)
    try:
        config = run.config()
    except ConfigError as error:
        return {**row, "error": str(error)}
    records = read_metrics(run.metrics_file) if run.metrics_file.exists() else []
    returns = [record["return"] for record in records if record.get("return") is not None]
    row.update(env=config.env, agent=config.agent, seed=config.seed, env_steps_planned=config.env_steps)
    row["env_steps"] = records[-1]["env_steps"] if records else 0
    row["return"] = returns[-1] if returns else None
    row["evaluation"] = (read_json(run.evaluation_file) or {}).get("return_mean")
    if records:
        row["changed"] = f"{datetime.fromtimestamp(records[-1]['time']):%Y-%m-%d %H:%M}"
    return row


def _send(run: Any) -> bool:
    from oneiros.platform.tracking.sender import catch_up

    return catch_up(run, timeout=300.0)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"

"""What commands that send a job to a cluster have in common: their options, and how a job is sent and followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from oneiros.platform.cli import options as o

if TYPE_CHECKING:
    from oneiros.platform.jobs.submission import Submission

Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard, such as http://HEAD:8265; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS."),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="A package to take along, with its entry points: a project's folder; repeatable."),
]
ShipPackage = Annotated[
    bool, typer.Option("--ship-package", help="Take this Oneiros along, for a cluster that has another or none.")
]
Pip = Annotated[
    list[str] | None, typer.Option(metavar="REQUIREMENT", help="Have pip install it for the job; repeatable.")
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME[=VALUE]", help="Set a variable for the job, or pass it on; repeatable."),
]
JobId = Annotated[str | None, typer.Option(help="The job's id; else Ray makes one.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")]


def words_of(command: str, flags: o.Flags) -> tuple[list[str], list[Path]]:
    """``oneiros command`` with these flags, and the files that it names, which a job finds by their bare names."""
    words: list[str] = [command]
    files: list[Path] = []
    for part in (flags.env, flags.file):
        if part is None:
            continue
        if str(part).endswith(o.YAML_ENDINGS):
            files.append(Path(part))
            words.append(Path(part).name)
        else:
            words.append(str(part))
    said: Sequence[tuple[str, Any]] = (
        ("--agent", flags.agent),
        ("--preset", flags.preset),
        ("--size", flags.size),
        ("--env-steps", flags.env_steps),
        ("--seed", flags.seed),
        ("--run-dir", flags.run_dir),
        ("--engine", flags.engine),
        ("--num-runners", flags.num_runners),
        ("--device", flags.device),
    )
    words += spelt(said)
    for override in flags.overrides:
        words += ["--set", override]
    return words, files


def spelt(said: Sequence[tuple[str, Any]]) -> list[str]:
    """Flags and their values as words; True is the flag alone, None and False nothing."""
    words = []
    for flag, value in said:
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return words


def send(submission: Submission, address: str | None, run_dir: str, json: Path | None, follow: bool) -> int:
    """Submit the job, say how to watch it, or follow it to its end; returns the exit code."""
    from oneiros.platform.cli.jobs import show_log
    from oneiros.platform.cli.output import console, notes, write_json
    from oneiros.platform.jobs.client import Jobs

    jobs = Jobs(address)
    made = jobs.submit(submission)
    console.print(f"Job {made}")
    notes.print(f"Run directory {run_dir}")
    write_json(json, {"job": made, "address": jobs.address, "entrypoint": submission.entrypoint, "run_dir": run_dir})
    if follow:
        return show_log(jobs, made)
    said = "" if address is None else f" --address {address}"
    notes.print(f"Watch it with: oneiros jobs logs -f {made}{said}")
    return 0

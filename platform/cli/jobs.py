"""``oneiros jobs``: list, status, logs, stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from oneiros.platform.cli import options as o
from oneiros.platform.cli.job_options import Address

if TYPE_CHECKING:
    from oneiros.platform.jobs.client import Job, Jobs

app = typer.Typer(invoke_without_command=True, help="List, watch and stop the jobs of a Ray cluster.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as 'oneiros jobs' lists it.")]
FAILED = 1


@app.callback()
def jobs(context: typer.Context, address: Address = None, json: o.Json = None) -> None:
    """List the jobs of a Ray cluster, the newest first."""
    if context.invoked_subcommand is None:
        list_(address, json)


@app.command("list")
def list_(address: Address = None, json: o.Json = None) -> None:
    """List the jobs of a Ray cluster, the newest first."""
    from oneiros.platform.cli.output import console, table, write_json
    from oneiros.platform.jobs.client import Jobs

    cluster = Jobs(address)
    found = cluster.list()
    rows = [(job.id, job.status.lower(), job.started, job.ended, job.run_dir or job.entrypoint) for job in found]
    headings = ["job", "state", "started", "ended", "run directory, or command"]
    console.print(table(headings, rows) if rows else f"No jobs at {cluster.address}.", markup=False)
    write_json(json, [job.to_dict() for job in found])


@app.command("status")
def status(job: JobId, address: Address = None, json: o.Json = None) -> int:
    """Show one job. Exit code 1 means that it failed."""
    from oneiros.platform.cli.output import console, table, write_json
    from oneiros.platform.jobs.client import Jobs

    found = Jobs(address).status(job)
    rows = [(name.replace("_", " "), value) for name, value in found.to_dict().items() if value is not None]
    console.print(table(["job", found.id], rows[1:]), markup=False)
    write_json(json, found.to_dict())
    return _exit_code(found)


@app.command("logs")
def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> int:
    """Show what a job has printed. With --follow, exit code 1 means that the job failed."""
    from oneiros.platform.jobs.client import Jobs

    cluster = Jobs(address)
    if follow:
        return show_log(cluster, job)
    sys.stdout.write(cluster.logs(job))
    return 0


@app.command("stop")
def stop(job: JobId, address: Address = None) -> None:
    """Stop a job: it saves a checkpoint first, from which 'oneiros resume' goes on."""
    from oneiros.platform.cli.output import console
    from oneiros.platform.jobs.client import Jobs

    cluster = Jobs(address)
    if cluster.stop(job):
        console.print(f"{job} is told to stop; 'oneiros jobs status {job}' says when it has.", markup=False)
    else:
        console.print(f"{job} has ended already: {cluster.status(job).status.lower()}.", markup=False)


def show_log(cluster: Jobs, job: str) -> int:
    """Print a job's log until it ends; Ctrl-C ends only the printing. Returns 1 if the job failed."""
    from oneiros.platform.cli.output import notes

    try:
        for piece in cluster.follow(job):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        notes.print(f"The job goes on; 'oneiros jobs stop {job}' would end it.")
        raise
    found = cluster.status(job)
    notes.print(f"Job {job}: {found.status.lower()}", markup=False)
    return _exit_code(found)


def _exit_code(job: Job) -> int:
    return FAILED if job.status == "FAILED" else 0

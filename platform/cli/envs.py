"""``oneiros envs`` and ``oneiros envs check``."""

from __future__ import annotations

from typing import Annotated

import typer
from oneiros.platform.cli import options as o

app = typer.Typer(invoke_without_command=True, help="List the suites of environments, or check one environment.")


@app.callback()
def envs(
    context: typer.Context,
    tasks: Annotated[bool, typer.Option("--tasks", help="List every task's id too.")] = False,
    json: o.Json = None,
) -> None:
    """List the suites of environments: whether they work here, and what installs what is missing."""
    if context.invoked_subcommand is not None:
        return
    from oneiros.envs.registry import GYMNASIUM, suites
    from oneiros.platform.cli.output import console, table, write_json

    found = suites()
    rows = []
    for suite in found:
        state = "works" if suite.available else "broken" if suite.error else "missing"
        mend = suite.error or (f"{', '.join(suite.missing)}: {suite.install}" if suite.missing else "")
        rows.append((suite.name, state, len(suite.tasks), suite.source, mend or suite.description))
    console.print(table(["suite", "here", "tasks", "from", "description, or what is missing"], rows), markup=False)
    if tasks:
        for suite in found:
            for task in suite.tasks:
                console.print(task if suite.name == GYMNASIUM else f"{suite.name}/{task}", markup=False)
    write_json(
        json,
        [
            {
                "name": suite.name,
                "available": suite.available,
                "description": suite.description,
                "missing": list(suite.missing),
                "install": suite.install,
                "error": suite.error,
                "source": suite.source,
                "tasks": list(suite.tasks),
            }
            for suite in found
        ],
    )


@app.command("check")
def check(
    env: Annotated[str, typer.Argument(metavar="ID", help="Environment id, such as CartPole-v1 or dmc/walker_walk.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to run it.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of its resets and of the random actions.")] = 0,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Option of the environment; repeatable.")
    ] = None,
    json: o.Json = None,
) -> int:
    """Run an environment with random actions and report what breaks its contract, its speed, and leaks.

    Exit code 1 means that something breaks the contract.
    """
    from oneiros.envs import registry
    from oneiros.platform.cli.env_check import check_environment
    from oneiros.platform.cli.output import console, write_json
    from oneiros.platform.config import overrides_layer

    settings = dict(overrides_layer(options or [], "--option").values)
    report = check_environment(env, lambda: registry.make(env, **settings), seconds=seconds, seed=seed)
    console.print(
        f"{report.steps:,} steps in {report.episodes} episodes, {report.steps_per_s:,.0f} steps/s, "
        f"{1000 * report.reset_s:.1f} ms a reset, {report.megabytes_per_million_steps:,.0f} MB a million steps."
    )
    for finding in report.findings:
        console.print(f"{'BREAKS' if finding.breaks else 'advice'}  {finding.text}", markup=False)
    if not report.findings:
        console.print(f"{env} keeps the contract.")
    write_json(json, report.to_dict())
    return 1 if report.broken else 0

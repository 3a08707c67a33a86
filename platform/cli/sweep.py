"""``oneiros sweep``."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from oneiros.platform.cli import completion
from oneiros.platform.cli import job_options as j
from oneiros.platform.cli import options as o

if TYPE_CHECKING:
    from oneiros.platform.cli.sweep_trial import Plan
    from oneiros.platform.config import RunConfig
    from oneiros.platform.jobs.search_space import SearchSpace
    from oneiros.platform.tracking import Tracker

DEFAULT_SAMPLES = 10
SECONDS_FOR_PARENT = 30.0
FAILED = 1


def sweep(
    env: o.Env,
    space: Annotated[Path, typer.Option(metavar="SPACE.YAML", help="Settings and the values that each may take.")],
    file: o.ConfigFile = None,
    agent: o.Agent = None,
    preset: o.Preset = None,
    size: o.Size = None,
    env_steps: o.EnvSteps = None,
    seed: o.Seed = None,
    engine: o.Engine = None,
    num_runners: o.NumRunners = None,
    device: o.Device = None,
    set_: o.Set = None,
    sweep_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the trials' run directories are made.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Draws of what is random, each with every combination of the grids.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What trials are compared by: a name in metrics.jsonl.")] = "return",
    mode: Annotated[
        str, typer.Option(help="max or min of it.", autocompletion=completion.one_of("max", "min"))
    ] = "max",
    asha: Annotated[bool, typer.Option("--asha", help="End trials early that lag behind (ASHA).")] = False,
    grace: Annotated[
        int | None, typer.Option(min=1, help="Env steps that every trial gets with --asha; else a ninth of them all.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=0, help="Trials at a time; 0: as many as fit.")] = 0,
    retries: Annotated[int, typer.Option(min=0, help="Times that a trial which fails is tried again.")] = 0,
    cpus: Annotated[float, typer.Option(min=0, help="Processors of a trial, beside its runners and learners.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a trial, beside its learners.")] = 0.0,
    search_seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    address: Annotated[
        str | None,
        typer.Option(help="Run it as a job on the cluster whose dashboard is there, such as http://HEAD:8265."),
    ] = None,
    plugin: j.Plugin = None,
    ship_package: j.ShipPackage = False,
    pip: j.Pip = None,
    variables: j.Variables = None,
    job_id: j.JobId = None,
    follow: j.Follow = False,
    json: o.Json = None,
) -> int:
    """Train many times with settings from a search space, on Ray Tune, and compare.

    SPACE.YAML holds settings by their names, each with grid, choice, uniform, loguniform or integer, such as
    'learning_rate: {loguniform: [1e-5, 1e-3]}'. Every trial is a run of its own, nested under one run in MLflow. Exit
    code 1 means that a trial failed. With --address it is a job on a cluster, whose hosts must share --sweep-dir.
    """
    from oneiros.platform.cli.output import claim_json, console, notes, table, write_json
    from oneiros.platform.config import ConfigError
    from oneiros.platform.jobs.search_space import read_space

    claim_json(json)
    if mode not in ("max", "min"):
        raise ConfigError(f"--mode must be max or min, not {mode!r}.")
    flags = o.Flags(
        env, file, tuple(set_ or ()), agent, preset, size, env_steps, seed, None, engine, num_runners, device
    )
    found = read_space(space)
    if address is not None:
        from oneiros.platform.cli.sweep_job import SweepJob

        if not plugin:
            _plan(flags, found, Path("elsewhere"), metric)
        options = [
            ("--samples", samples), ("--metric", metric), ("--mode", mode), ("--asha", asha), ("--grace", grace),
            ("--concurrent", concurrent), ("--retries", retries), ("--cpus", cpus), ("--gpus", gpus),
            ("--search-seed", search_seed),
        ]  # fmt: skip
        job = SweepJob(address, plugin or (), ship_package, pip or (), variables or (), job_id, follow)
        return job.send(flags, space, sweep_dir, options, json)
    if any((plugin, ship_package, pip, variables, job_id, follow)):
        raise ConfigError("--plugin, --ship-package, --pip, --env, --job-id and --follow go with --address.")
    folder = (sweep_dir or _default_folder(env)).resolve()
    plan, config = _plan(flags, found, folder, metric)

    from oneiros.platform.cli import preflight
    from oneiros.platform.cli.sweep_run import Search, run_sweep

    preflight.check(plan.resolve(found.corners()[0], "probe"))
    steps = grace or max(1, config.env_steps // 9)
    drawn = samples or (1 if found.is_grid else DEFAULT_SAMPLES)
    search = Search(
        found, drawn, search_seed, mode, concurrent, min(steps, config.env_steps) if asha else None, retries, cpus, gpus
    )
    notes.print(f"{drawn * found.grid_size} trials in {folder}")
    plan, tracker = _begin(plan, config, space)
    status = "FAILED"
    try:
        results = run_sweep(plan, search)
        status = "FINISHED"
        _record(tracker, folder, [result.to_dict() for result in results], metric)
    finally:
        if tracker is not None:
            tracker.close(status)
    keys = [dimension.key for dimension in found.dimensions]
    rows = [
        [
            Path(result.run_dir).name,
            result.state,
            _number(result.metric),
            result.env_steps,
            *(_number(result.values.get(key)) for key in keys),
        ]
        for result in results
    ]
    console.print(table(["trial", "state", metric, "env steps", *keys], rows), markup=False)
    for result in results:
        if result.error is not None:
            console.print(f"{Path(result.run_dir).name} failed: {result.error}", markup=False)
    best = results[0] if results and results[0].metric is not None else None
    if best is not None:
        console.print(f"Best: {best.run_dir}", markup=False)
    write_json(
        json,
        {
            "sweep_dir": str(folder),
            "metric": metric,
            "mode": mode,
            "best": best.to_dict() if best else None,
            "trials": [result.to_dict() for result in results],
            "mlflow_run": plan.parent_run,
        },
    )
    return FAILED if any(result.state == "failed" for result in results) else 0


def _plan(flags: o.Flags, space: SearchSpace, folder: Path, metric: str) -> tuple[Plan, RunConfig]:
    """What the trials share, once every value of the space was found to make a valid configuration."""
    from oneiros.platform.cli.sweep_trial import Plan
    from oneiros.platform.config import ConfigError

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: choose another --sweep-dir.")
    plan = Plan(tuple(flags.layers()), folder, metric, None, None)
    configs = [plan.resolve(values, "probe").config for values in space.corners()]
    return plan, configs[0]


def _begin(plan: Plan, config: RunConfig, space: Path) -> tuple[Plan, Tracker | None]:
    """Make the MLflow run that the trials are nested under; a server that is away costs the nesting, not the sweep."""
    from dataclasses import replace

    from oneiros.platform.cli.output import notes
    from oneiros.platform.tracking import RunDirectory, Tracker
    from oneiros.platform.tracking.mlflow_run import tracking_uri

    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "space.yaml").write_text(space.read_text(encoding="utf-8"), encoding="utf-8")
    if not config.tracking.mlflow:
        return plan, None
    uri = tracking_uri(config.model_copy(update={"run_dir": plan.folder}))
    tracking = config.tracking.model_copy(
        update={"uri": uri, "run_name": plan.folder.name, "tags": {**config.tracking.tags, "oneiros.sweep": "parent"}}
    )
    own = config.model_copy(update={"run_dir": plan.folder, "tracking": tracking})
    directory = RunDirectory(plan.folder)
    directory.write_config(own)
    tracker = Tracker(directory, own)
    until = time.monotonic() + SECONDS_FOR_PARENT
    while tracker.run_id is None and time.monotonic() < until and tracker.uri is not None:
        time.sleep(0.05)
    if tracker.run_id is None:
        notes.print(f"MLflow at {uri} does not answer: the trials are recorded, but not nested under one run.")
    tracker.artifact(plan.folder / "space.yaml")
    return replace(plan, tracking_uri=uri, parent_run=tracker.run_id), tracker


def _record(tracker: Tracker | None, folder: Path, trials: list[dict[str, Any]], metric: str) -> None:
    """Write the trials down beside them, and tell MLflow the best."""
    from json import dumps

    file = folder / "sweep.json"
    file.write_text(dumps(trials, indent=2) + "\n", encoding="utf-8")
    if tracker is None:
        return
    best = next((trial for trial in trials if trial["metric"] is not None), None)
    figures = {"trials": float(len(trials)), "failed": float(sum(trial["state"] == "failed" for trial in trials))}
    if best is not None:
        figures[f"best/{metric}"] = best["metric"]
        tracker.tags({f"best.{key}": str(value) for key, value in best["values"].items()})
    tracker.record(figures, best["env_steps"] if best else 0)
    tracker.artifact(file)


def _default_folder(env: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(env).stem if env.endswith(o.YAML_ENDINGS) else env)
    return Path("runs") / f"sweep-{name}-{datetime.now():%Y%m%d-%H%M%S}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

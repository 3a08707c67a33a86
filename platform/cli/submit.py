"""``oneiros submit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import options as o

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


def submit(
    env: o.Env,
    file: o.ConfigFile = None,
    agent: o.Agent = None,
    preset: o.Preset = None,
    size: o.Size = None,
    env_steps: o.EnvSteps = None,
    seed: o.Seed = None,
    run_dir: o.RunDir = None,
    engine: o.Engine = None,
    num_runners: o.NumRunners = None,
    device: o.Device = None,
    set_: o.Set = None,
    address: Address = None,
    plugin: Plugin = None,
    ship_package: ShipPackage = False,
    pip: Pip = None,
    variables: Variables = None,
    cpus: Annotated[float, typer.Option(min=0, help="Processors reserved for the process that drives.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs reserved for it; it learns if num_learners is 0.")] = 0.0,
    grace: Annotated[int, typer.Option(min=1, help="Seconds that a stopped job gets to save a checkpoint.")] = 60,
    job_id: Annotated[str | None, typer.Option(help="The job's id; else Ray makes one.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it ends.")] = False,
    json: o.Json = None,
) -> int:
    """Train on a Ray cluster: takes what 'train' takes, and ships it as a job.

    The configuration is checked here, unless only a plugin that is shipped knows the algorithm. The run directory must
    be on a disk that the cluster's hosts share.
    """
    flags = o.Flags(
        env, file, tuple(set_ or ()), agent, preset, size, env_steps, seed, run_dir, engine, num_runners, device
    )
    where = _check(flags, plugins=bool(plugin))

    from oneiros.platform.cli.jobs import show_log
    from oneiros.platform.cli.output import claim_json, console, notes, write_json
    from oneiros.platform.jobs.client import Jobs
    from oneiros.platform.jobs.submission import Submission, environment_from

    claim_json(json)
    words, files = _train_words(flags)
    submission = Submission(
        words=tuple(words),
        files=tuple(files),
        plugins=tuple(plugin or ()),
        ship_package=ship_package,
        requirements=tuple(pip or ()),
        environment=environment_from(variables or ()),
        num_cpus=cpus,
        num_gpus=gpus,
        grace_s=grace,
        job_id=job_id,
        metadata={"oneiros.run_dir": where, "oneiros.env": env if file or not env.endswith(o.YAML_ENDINGS) else ""},
    )
    jobs = Jobs(address)
    made = jobs.submit(submission)
    console.print(f"Job {made}")
    notes.print(f"Run directory {where}")
    write_json(json, {"job": made, "address": jobs.address, "entrypoint": submission.entrypoint, "run_dir": where})
    if follow:
        return show_log(jobs, made)
    said = "" if address is None else f" --address {address}"
    notes.print(f"Watch it with: oneiros jobs logs -f {made}{said}")
    return 0


def _check(flags: o.Flags, plugins: bool) -> str:
    """The run directory; raises ``ConfigError`` for whatever can be known here to be wrong with the configuration."""
    from oneiros.platform.cli.output import notes
    from oneiros.platform.config import ConfigError, RunConfig, list_algorithms

    said = _said(flags)
    agent = flags.agent or said.get("agent", RunConfig.model_fields["agent"].default)
    if plugins and agent not in list_algorithms():
        notes.print(f"The algorithm {agent} is not installed here: its settings are checked on the cluster.")
        run_dir = flags.run_dir or said.get("run_dir")
    else:
        run_dir = flags.resolve().config.run_dir
    if run_dir is None or not Path(run_dir).is_absolute():
        raise ConfigError(
            "a job's own folder goes away with it: give --run-dir an absolute path that all hosts of the cluster see, "
            "such as /shared/runs/walker."
        )
    return str(run_dir)


def _said(flags: o.Flags) -> dict[str, Any]:
    """What the file and ``--set`` say, unchecked."""
    from oneiros.platform.config import overrides_layer, yaml_layer

    said: dict[str, Any] = {}
    for name in (flags.env, flags.file):
        if str(name).endswith(o.YAML_ENDINGS):
            said |= yaml_layer(Path(str(name))).values
    return said | dict(overrides_layer(flags.overrides).values)


def _train_words(flags: o.Flags) -> tuple[list[str], list[Path]]:
    """``oneiros train`` with these flags, and the files that it names, which the job finds by their bare names."""
    words, files = ["train"], []
    for part in (flags.env, flags.file):
        if part is None:
            continue
        if str(part).endswith(o.YAML_ENDINGS):
            files.append(Path(part))
            words.append(Path(part).name)
        else:
            words.append(str(part))
    for flag, value in (
        ("--agent", flags.agent),
        ("--preset", flags.preset),
        ("--size", flags.size),
        ("--env-steps", flags.env_steps),
        ("--seed", flags.seed),
        ("--run-dir", flags.run_dir),
        ("--engine", flags.engine),
        ("--num-runners", flags.num_runners),
        ("--device", flags.device),
    ):
        if value is not None:
            words += [flag, str(value)]
    for override in flags.overrides:
        words += ["--set", override]
    return words, files

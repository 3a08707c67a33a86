"""``oneiros submit``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import beginning as b
from oneiros.platform.cli import job_options as j
from oneiros.platform.cli import options as o


def submit(
    env: o.OptionalEnv = None,
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
    offline: b.Offline = None,
    prefill: b.Prefill = None,
    from_: b.From = None,
    reset: b.Reset = None,
    set_: o.Set = None,
    address: j.Address = None,
    plugin: j.Plugin = None,
    ship_package: j.ShipPackage = False,
    pip: j.Pip = None,
    variables: j.Variables = None,
    cpus: Annotated[float, typer.Option(min=0, help="Processors reserved for the process that drives.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs reserved for it; it learns if num_learners is 0.")] = 0.0,
    grace: Annotated[int, typer.Option(min=1, help="Seconds that a stopped job gets to save a checkpoint.")] = 60,
    job_id: j.JobId = None,
    follow: j.Follow = False,
    json: o.Json = None,
) -> int:
    """Train on a Ray cluster: takes what 'train' takes, and ships it as a job.

    The configuration is checked here, unless only a plugin that is shipped knows the algorithm. The run directory, and
    data or a run to begin with, must be on a disk that the cluster's hosts share.
    """
    flags = o.Flags(
        env, file, tuple(set_ or ()), agent, preset, size, env_steps, seed, run_dir, engine, num_runners, device
    )
    beginning = b.Beginning(offline, prefill, from_, reset)
    where = _check(flags, beginning, plugins=bool(plugin))

    from oneiros.platform.cli.output import claim_json
    from oneiros.platform.jobs.submission import Submission, environment_from

    claim_json(json)
    words, files = j.words_of("train", flags)
    words += j.spelt([("--offline", offline), ("--prefill", prefill), ("--from", from_), ("--reset", reset)])
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
        metadata={"oneiros.run_dir": where, "oneiros.env": _env(flags)},
    )
    return j.send(submission, address, where, json, follow)


def _check(flags: o.Flags, beginning: b.Beginning, plugins: bool) -> str:
    """The run directory; raises ``ConfigError`` for whatever can be known here to be wrong with the configuration."""
    from oneiros.platform.cli.output import notes
    from oneiros.platform.config import ConfigError, RunConfig, list_algorithms

    here = _what_is_here(beginning)
    said = _said(flags)
    agent = flags.agent or said.get("agent", RunConfig.model_fields["agent"].default)
    if plugins and agent not in list_algorithms():
        notes.print(f"The algorithm {agent} is not installed here: its settings are checked on the cluster.")
        run_dir = flags.run_dir or said.get("run_dir")
    elif flags.env is None and beginning.offline is not None and here.offline is None:
        # Data name their environment, and they are not here.
        run_dir = flags.run_dir or said.get("run_dir")
    else:
        run_dir = flags.resolve(here.layers(flags.env)).config.run_dir
    if run_dir is None or not Path(run_dir).is_absolute():
        raise ConfigError(
            "a job's own folder goes away with it: give --run-dir an absolute path that all hosts of the cluster see, "
            "such as /shared/runs/walker."
        )
    return str(run_dir)


def _what_is_here(beginning: b.Beginning) -> b.Beginning:
    """What of it can be looked at on this machine; raises ``ConfigError`` for what no host of the cluster can find."""
    from oneiros.platform.cli.output import notes
    from oneiros.platform.config import ConfigError
    from oneiros.platform.data.minari_folder import PREFIX

    here = beginning
    for flag, name in (("--offline", "offline"), ("--prefill", "prefill"), ("--from", "from_")):
        place = getattr(beginning, name)
        if place is None:
            continue
        downloaded = str(place).startswith(PREFIX)
        if not downloaded and not Path(place).is_absolute():
            raise ConfigError(f"{flag} must be an absolute path that all hosts of the cluster see, not {place}.")
        if downloaded or not Path(place).exists():
            notes.print(f"{place} is not on this machine: it is checked on the cluster.", markup=False)
            here = replace(here, **{name: None})
    return here if here.from_ is not None or beginning.from_ is None else replace(here, reset=None)


def _said(flags: o.Flags) -> dict[str, Any]:
    """What the file and ``--set`` say, unchecked."""
    from oneiros.platform.config import overrides_layer, yaml_layer

    said: dict[str, Any] = {}
    for name in (flags.env, flags.file):
        if str(name).endswith(o.YAML_ENDINGS):
            said |= yaml_layer(Path(str(name))).values
    return said | dict(overrides_layer(flags.overrides).values)


def _env(flags: o.Flags) -> str:
    """The environment's id, where the command names it rather than a file."""
    named = flags.env is not None and (flags.file is not None or not flags.env.endswith(o.YAML_ENDINGS))
    return str(flags.env) if named else ""

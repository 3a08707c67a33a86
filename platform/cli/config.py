"""``oneiros config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oneiros.platform.cli import options as o


def config(
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
    json: o.Json = None,
) -> None:
    """Show the effective configuration and where each value comes from.

    Takes what 'train' takes; or a run's directory, and shows what that run was started with.
    """
    from oneiros.platform.cli.output import console, table, write_json

    if (Path(env) / "config.yaml").is_file():
        rows = _of_run(Path(env))
    else:
        resolved = o.Flags(
            env, file, tuple(set_ or ()), agent, preset, size, env_steps, seed, run_dir, engine, num_runners, device
        ).resolve()
        rows = list(resolved.values())
    console.print(table(["setting", "value", "from"], [(key, _show(value), origin) for key, value, origin in rows]))
    write_json(json, {key: {"value": value, "from": origin} for key, value, origin in rows})


def _of_run(path: Path) -> list[tuple[str, Any, str]]:
    from oneiros.platform.cli.training import read_json
    from oneiros.platform.config import Resolved, find_algorithm
    from oneiros.platform.tracking import RunDirectory

    run = RunDirectory.open(path)
    settings = run.config()
    origins = (read_json(run.provenance_file) or {}).get("origins", {})
    return list(Resolved(settings, find_algorithm(settings.agent), origins).values())


def _show(value: Any) -> str:
    from json import dumps

    return value if isinstance(value, str) else dumps(value)

"""``oneiros export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from oneiros.platform.cli import options as o


def export(
    path: o.RunPath,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The policy's folder: new, or an older export.")],
    checkpoint: Annotated[
        str, typer.Option(help="latest, best (by return in training), env steps, or a path.")
    ] = "latest",
    onnx: Annotated[bool, typer.Option("--onnx", help="Write policy.onnx too: one step as a graph.")] = False,
    json: o.Json = None,
) -> None:
    """Write a run's policy as a folder of safetensors and JSON that acts without Ray, MLflow or the run.

    oneiros.platform.export.load(DIR) acts in Python, 'oneiros serve DIR' over HTTP.
    """
    from oneiros.platform.cli.output import claim_json, console, write_json
    from oneiros.platform.export import export_policy
    from oneiros.platform.tracking import RunDirectory

    claim_json(json)
    run = RunDirectory.open(path)
    config = run.config()
    manifest = export_policy(
        run.find_checkpoint(checkpoint), to, env=config.env, env_options=config.env_options, onnx=onnx
    )
    size = sum(record.bytes for record in manifest.files.values())
    console.print(
        f"Policy {to}: {manifest.algorithm} for {config.env}, {manifest.env_steps:,} env steps, "
        f"{', '.join(sorted(manifest.files))} ({size / 2**20:.1f} MB)."
    )
    write_json(
        json,
        {
            "policy": str(to),
            "algorithm": manifest.algorithm,
            "env": config.env,
            "env_steps": manifest.env_steps,
            "files": {name: record.bytes for name, record in manifest.files.items()},
            "onnx": manifest.config.get("onnx"),
        },
    )

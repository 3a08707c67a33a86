"""``oneiros data export`` and ``oneiros data import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from oneiros.platform.cli import completion
from oneiros.platform.cli import options as o

app = typer.Typer(no_args_is_help=True, help="Episodes as data sets: out of a run's replay, and in from files.")

To = Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="npz (one file an episode) or minari.", autocompletion=completion.one_of("npz", "minari")
    ),
]


@app.command("export")
def export(
    path: o.RunPath,
    to: To,
    format_: Format = "npz",
    checkpoint: Annotated[str, typer.Option(help="latest, best, env steps, or a path.")] = "latest",
    json: o.Json = None,
) -> None:
    """Write the episodes in a run's replay as a data set, for --offline, --prefill, or anybody else.

    Episodes whose beginning the replay has evicted are left out.
    """
    from oneiros.platform.checkpoint import read_manifest
    from oneiros.platform.cli.output import claim_json
    from oneiros.platform.data.replay_episodes import ReplayEpisodes
    from oneiros.platform.tracking import RunDirectory

    claim_json(json)
    run = RunDirectory.open(path)
    where = run.find_checkpoint(checkpoint)
    episodes = ReplayEpisodes(where, read_manifest(where))
    count, steps = _writer(format_)(to, episodes, episodes.spaces, run.config().env)
    _tell(to, format_, count, steps, json, cut=episodes.cut)


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder of .npz episodes, of Minari's or of MineRL's, or minari:ID.")
    ],
    to: To,
    format_: Format = "npz",
    env: Annotated[
        str | None,
        typer.Option(help="The environment that they were recorded in, if the data do not say.", metavar="ID"),
    ] = None,
    json: o.Json = None,
) -> None:
    """Check somebody's episodes and write them as a data set that says its spaces.

    An .npz episode of T steps holds observation (T + 1, ...), action (T, ...), reward (T,) and terminated ();
    entries of nested spaces are observation/KEY and action/KEY. MineRL's recordings become episodes of minerl/diamond.
    """
    from oneiros.envs import registry
    from oneiros.platform.cli.output import claim_json
    from oneiros.platform.data import open_data
    from oneiros.platform.data.filling import checked, require_same_spaces

    claim_json(json)
    spaces = None
    if env is not None:
        made = registry.make(env)
        spaces = made.observation_space, made.action_space
        made.close()  # type: ignore[no-untyped-call]
    data = open_data(source, spaces)
    own = data.observation_space, data.action_space
    if spaces is not None:
        require_same_spaces(f"the data set {source}", own, spaces)
    count, steps = _writer(format_)(to, checked(data), own, env or data.env)
    _tell(to, format_, count, steps, json)


def _writer(format_: str) -> Any:
    from oneiros.platform.config import ConfigError
    from oneiros.platform.data.minari_folder import write_minari
    from oneiros.platform.data.npz_folder import write_folder

    writers = {"npz": write_folder, "minari": write_minari}
    if format_ not in writers:
        raise ConfigError(f"--format must be npz or minari, not {format_!r}.")
    return writers[format_]


def _tell(to: Path, format_: str, count: int, steps: int, json: Path | None, **more: int) -> None:
    from oneiros.platform.cli.output import console, write_json

    left_out = f"; {more['cut']} without their beginning left out" if more.get("cut") else ""
    console.print(f"Data set {to} ({format_}): {count:,} episodes, {steps:,} steps{left_out}.")
    write_json(json, {"data_set": str(to), "format": format_, "episodes": count, "steps": steps, **more})

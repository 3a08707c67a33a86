"""``oneiros setup minerl``."""

from __future__ import annotations

from typing import Annotated

import typer
from oneiros.platform.cli import options as o

app = typer.Typer(no_args_is_help=True, help="Make what an environment needs beside this installation.")


@app.callback()
def setup() -> None:
    """Make what an environment needs beside this installation."""


@app.command("minerl")
def minerl(
    python: Annotated[
        str | None, typer.Option(help="The Python to use, from 3.8 to 3.11; found if not given.", metavar="PROGRAM")
    ] = None,
    without_game: Annotated[
        bool, typer.Option("--without-game", help="MineRL's Python side alone: for tests; it cannot play.")
    ] = False,
    json: o.Json = None,
) -> None:
    """Make the virtual environment that MineRL 0.4.4 needs for itself, and build its game there.

    Building the game takes JDK 8, the internet and some twenty minutes: 'oneiros doctor minerl' says what is missing.
    The environment lies at $ONEIROS_MINERL, or among the user's data; one that is there already is made anew.
    """
    from oneiros.envs.minerl import installation
    from oneiros.platform.cli.output import claim_json, console, notes, write_json

    claim_json(json)
    base = installation.base_python(python)
    if not without_game:
        installation.require_java()
    for step in installation.make_home(base, with_game=not without_game):
        notes.print(f"{step} ...", markup=False)
    home, game = installation.home(), installation.game()
    version = installation.installed_version("minerl")
    ready = "with its game" if game else "without its game, which playing needs"
    console.print(f"MineRL {version} is in {home}, {ready}.", markup=False)
    write_json(json, {"home": str(home), "minerl": version, "game": None if game is None else str(game)})

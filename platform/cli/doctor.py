"""``oneiros doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from oneiros.platform.cli import completion
from oneiros.platform.cli import options as o

MARKS = {"works": "ok", "missing": "--", "absent": "  ", "risk": "!!"}


Topic = Annotated[
    str | None,
    typer.Argument(
        metavar="[minerl]", help="Step by step what MineRL needs.", autocompletion=completion.one_of("minerl")
    ),
]


def doctor(topic: Topic = None, json: o.Json = None) -> int:
    """Say what works here, what is missing, and the command that mends it.

    Exit code 1 means that something which training (or MineRL, if that is asked) needs is missing.
    """
    from oneiros.platform.cli.examination import examine
    from oneiros.platform.cli.minerl_examination import examine_minerl
    from oneiros.platform.cli.output import console, table, write_json
    from oneiros.platform.config import ConfigError

    if topic not in (None, "minerl"):
        raise ConfigError(f"the doctor knows about minerl, or everything where nothing is named, not {topic!r}.")
    found = examine() if topic is None else examine_minerl()
    rows = [(MARKS[item.state], item.name, item.detail, item.mend) for item in found]
    console.print(table(["", "what", "state", "what mends it"], rows), markup=False)
    missing = [item for item in found if item.state == "missing"]
    for item in found:
        if item.state == "risk":
            console.print(f"Warning: {item.name}: {item.detail}; {item.mend}.", markup=False)
    if missing:
        console.print(f"Missing: {', '.join(item.name for item in missing)}.")
    else:
        console.print(f"Everything that {'MineRL' if topic else 'training'} needs is here.")
    write_json(json, [item.__dict__ for item in found])
    return 1 if missing else 0

"""``oneiros algorithms``."""

from __future__ import annotations

from typing import Any

from oneiros.platform.cli import options as o


def algorithms(json: o.Json = None) -> None:
    """List the installed algorithms and their presets."""
    from oneiros.platform.cli.output import console, table, write_json
    from oneiros.platform.config import ConfigError, list_algorithms

    found = []
    for name, algorithm in list_algorithms().items():
        entry: dict[str, Any] = {"name": name, "package": algorithm.package, "presets": {}, "error": None}
        try:
            entry["presets"] = {key: preset.description for key, preset in algorithm.presets.items()}
        except ConfigError as error:
            entry["error"] = str(error)
        found.append(entry)
    for entry in found:
        console.print(f"[bold]{entry['name']}[/bold]  {entry['package']}")
        if entry["error"]:
            console.print(f"  does not work: {entry['error']}", markup=False)
        else:
            console.print(table(["  preset", "for"], [(f"  {k}", v) for k, v in entry["presets"].items()]))
    write_json(json, found)

"""``oneiros doctor``."""

from __future__ import annotations

from oneiros.platform.cli import options as o

MARKS = {"works": "ok", "missing": "--", "absent": "  ", "risk": "!!"}


def doctor(json: o.Json = None) -> int:
    """Say what works here, what is missing, and the command that mends it.

    Exit code 1 means that something which training needs is missing.
    """
    from oneiros.platform.cli.examination import examine
    from oneiros.platform.cli.output import console, table, write_json

    found = examine()
    rows = [(MARKS[item.state], item.name, item.detail, item.mend) for item in found]
    console.print(table(["", "what", "state", "what mends it"], rows), markup=False)
    missing = [item for item in found if item.state == "missing"]
    for item in found:
        if item.state == "risk":
            console.print(f"Warning: {item.name}: {item.detail}; {item.mend}.", markup=False)
    if missing:
        console.print(f"Missing: {', '.join(item.name for item in missing)}.")
    else:
        console.print("Everything that training needs is here.")
    write_json(json, [item.__dict__ for item in found])
    return 1 if missing else 0

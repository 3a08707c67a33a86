"""What the Luanti benchmarks write beside their numbers; a measurement begins when this is imported."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from oneiros.envs.luanti import installation
from oneiros.platform.bench.machine import OtherLoad
from oneiros.platform.tracking.provenance import git_state, processor_name

RESULTS = Path(__file__).parent / "results"
LABEL = "Minecraft-like (Luanti engine), not Minecraft"
# A commit that is made while a benchmark runs is not the one that was measured.
SOURCE = git_state(RESULTS)
OTHERS = OtherLoad()
OTHERS.__enter__()


def write(name: str, result: dict[str, Any]) -> Path:
    """Keep a result; returns where."""
    program = installation.program("minetest")
    assert program is not None
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
    OTHERS.__exit__()
    machine = {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "cores_of_this": len(os.sched_getaffinity(0)),
        "share_of_processor_time_that_others_took": None if OTHERS.share is None else round(OTHERS.share, 3),
        "load_average": round(os.getloadavg()[2], 1),
        "engine": version,
    }
    origin = {
        "command": shlex.join(["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": SOURCE["commit"] if SOURCE is not None else None,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": LABEL, **result, **origin, "machine": machine}, indent=1) + "\n")
    return path

"""What the Luanti benchmarks write beside their numbers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from oneiros.envs.luanti import installation

RESULTS = Path(__file__).parent / "results"
LABEL = "Minecraft-like (Luanti engine), not Minecraft"


def write(name: str, result: dict[str, Any]) -> Path:
    """Keep a result; returns where."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    program = installation.program("minetest")
    assert program is not None
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()[0]
    machine = {"cpu": cpu, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[2], 1), "engine": version}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": LABEL, **result, "machine": machine}, indent=1) + "\n")
    return path

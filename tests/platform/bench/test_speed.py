"""``tests/benchmarks/speed.py``: on a GPU lent for minutes what is measured is kept, and the next call goes on."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def speed(monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "speed.py"
    spec = importlib.util.spec_from_file_location("speed", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "speed", module)
    spec.loader.exec_module(module)
    return module


def test_what_is_missing_is_measured_until_time_is_up(speed, monkeypatch, tmp_path):
    asked = []

    def run(words, *, env, check, timeout):
        size = words[words.index("--size") + 1]
        asked.append((size, timeout))
        if size == "50m" and len(asked) < 5:
            raise subprocess.TimeoutExpired(words, timeout)
        Path(words[-1]).write_text(json.dumps({"median_s": 0.01, "min_s": 0.01, "max_s": 0.02}))

    monkeypatch.setattr(speed.subprocess, "run", run)
    monkeypatch.setattr(speed, "git_state", lambda path: {"commit": "0123456789", "changed": True})
    wanted = [m for m in speed.CUDA if "uncompiled" not in m.name]
    assert [m.words.split()[2] for m in wanted] == ["1m", "12m", "50m", "200m"]
    assert speed.measure_all(wanted, True, tmp_path, True, 500.0) == ["update-50m-image-cuda"]
    assert [size for size, _ in asked] == ["1m", "12m", "50m", "200m"]
    assert all(0 < timeout <= 500 for _, timeout in asked)
    kept = json.loads((tmp_path / "speed-update-1m-image-cuda.json").read_text())
    assert kept["commit"] == "0123456 with changes"
    assert kept["median_s"] == 0.01 and "--device cuda" in kept["command"] and "--compile auto" in kept["command"]
    assert speed.measure_all(wanted, True, tmp_path, True, 0.0) == ["update-50m-image-cuda"], "no time is left"
    assert speed.measure_all(wanted, True, tmp_path, True, None) == []
    assert [size for size, _ in asked[4:]] == ["50m"]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json"] * 4


def named(speed, *where):
    """The rows of the table by the first of their cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in speed.table(*where).splitlines()[2:]]
    return {name: cells for name, *cells in rows}


def test_the_results_that_there_are_make_a_table(speed):
    told = named(speed)
    assert set(told) == {file.stem.removeprefix("speed-") for file in speed.RESULTS.glob("speed-*.json")}
    assert all(len(cells) == 4 and cells[0] for cells in told.values())
    others = {"joint-update-1m", "growth-replay_rows-disk"}
    measured = {measurement.name for measurement in speed.CPU + speed.CUDA}
    assert set(told) - others <= measured, "--missing would measure them again"


def test_a_result_without_command_and_commit_is_told_as_such(speed, tmp_path):
    figures = {"median_s": 0.5, "min_s": 0.4, "max_s": 0.6}
    (tmp_path / "speed-old.json").write_text(json.dumps(figures))
    (tmp_path / "speed-new.json").write_text(json.dumps({"command": "oneiros bench", "commit": "0123456", **figures}))
    assert named(speed, tmp_path) == {
        "new": ["0.5 s (0.4 s to 0.6 s)", "", "`oneiros bench`", "0123456"],
        "old": ["0.5 s (0.4 s to 0.6 s)", "", "not recorded", "not recorded"],
    }

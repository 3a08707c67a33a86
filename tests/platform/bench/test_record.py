"""``tests/benchmarks/record.py``: what a run's evaluations become in a result."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

RECORD = Path(__file__).parents[2] / "benchmarks" / "record.py"


@pytest.mark.parametrize("ended_it", [7.7, 7.9])
def test_the_evaluation_that_ended_a_run_is_kept_beside_the_final_one(tmp_path: Path, ended_it: float) -> None:
    rows = [
        {"env_steps": 1000, "evaluation/return_mean": 5.1},
        {"env_steps": 1200, "evaluation/return_mean": 5.1, "updates": 3},
        {"env_steps": 2000, "evaluation/return_mean": ended_it},
        {"env_steps": 2000, "evaluation/return_mean": 7.7},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "evaluation.json").write_text(json.dumps({"env_steps": 2000, "return_mean": 7.7}))
    assert runpy.run_path(str(RECORD))["evaluations_of"](tmp_path) == [
        {"env_steps": 1000, "return": 5.1},
        {"env_steps": 2000, "return": ended_it},
        {"env_steps": 2000, "return": 7.7, "final": True},
    ]

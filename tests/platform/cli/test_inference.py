"""A training from the command line whose env runners ask the learner's device for actions."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from oneiros.platform.tracking import read_metrics

ONEIROS = os.path.join(os.path.dirname(sys.executable), "oneiros")


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_with_runners_that_hold_no_model(tiny, tmp_path):
    tiny(num_runners=2, inference="learner")
    words = ["train", "CartPole-v1", "tiny.yaml", "--env-steps", "1500", "--run-dir", "run", "--json", "out.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([ONEIROS, *words], capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["env_steps"] >= 1500 and figures["evaluation"]["episodes"] == 2
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["inference"] == "learner"
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert max(row.get("updates", 0) for row in rows) > 10 and any("policy_age" in row for row in rows)
    assert not any(row.get("faults/env_runner_errors") for row in rows)

"""A training whose process is killed without a word, and goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from oneiros.platform.checkpoint import CheckpointStore
from oneiros.platform.tracking import read_metrics
from safetensors.torch import load_file

ONEIROS = os.path.join(os.path.dirname(sys.executable), "oneiros")
STEPS = 256
"""What one process takes between two checkpoints, in about two steps of the engine."""


@pytest.fixture(autouse=True)
def often_saved(tiny):
    tiny(
        train_ratio=1,
        tracking={"mlflow": False, "every_seconds": 1e-6, "videos": False, "system_metrics": False},
        evaluation={"at_end": False},
        checkpoint={"every_env_steps": STEPS, "every_seconds": 100_000, "keep": 100},
    )


def start(*words):
    # Threads that wait for each other on a busy machine make everything ten times slower.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [ONEIROS, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process, code=0):
    try:
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == code, err


def wait_for(process, what, seconds=400):
    deadline = time.monotonic() + seconds
    while not what():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate(timeout=60)[1])
        time.sleep(0.02)


def figures(run):
    """What was recorded, but speeds and times, by env steps."""
    return [
        {name: value for name, value in row.items() if name != "time" and not name.endswith("_per_s")}
        for row in read_metrics(run / "metrics.jsonl")
    ]


@pytest.mark.timeout(1200)
def test_a_killed_run_is_resumed_exactly(tmp_path):
    words = ["train", "CartPole-v1", "tiny.yaml", "--engine", "local", "--seed", "5"]
    finish(start(*words, "--env-steps", str(4 * STEPS), "--run-dir", "whole"))

    process = start(*words, "--env-steps", str(1000 * STEPS), "--run-dir", "killed")
    metrics = tmp_path / "killed/metrics.jsonl"
    # It dies somewhere between two checkpoints, with records that are repeated by who goes on.
    wait_for(process, lambda: metrics.exists() and any(row["env_steps"] > 2.2 * STEPS for row in read_metrics(metrics)))
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    store = CheckpointStore(tmp_path / "killed/checkpoints")
    # Nothing newer than where it shall go on from: the machine may have been faster than the watcher.
    for path, manifest in store.checkpoints():
        if manifest.env_steps > 2 * STEPS:
            (path / "learner-0/agent.safetensors").write_bytes(b"damaged")
    finish(start("resume", "killed", "--env-steps", str(4 * STEPS)))

    expected, found = figures(tmp_path / "whole"), figures(tmp_path / "killed")
    assert [row["env_steps"] for row in found] == [row["env_steps"] for row in expected]
    assert found == expected and expected[-1]["updates"] > 50
    one, other = (CheckpointStore(tmp_path / run / "checkpoints").latest() for run in ("whole", "killed"))
    assert one.name == other.name
    for name in ("learner-0/agent.safetensors", "policy.safetensors", "rollout.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys() and all((ours[key] == theirs[key]).all() for key in ours), name
    assert json.loads((one / "loop.json").read_text()) == json.loads((other / "loop.json").read_text())


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_nothing_outlives_a_killed_driver_and_its_run_goes_on(tmp_path):
    words = ["--engine", "rllib", "--num-runners", "1", "--set", "checkpoint.every_seconds=1"]
    process = start("train", "CartPole-v1", "tiny.yaml", "--env-steps", "1000000000", "--run-dir", "run", *words)
    store = CheckpointStore(tmp_path / "run/checkpoints")
    wait_for(process, lambda: any(manifest.counters["updates"] for _, manifest in store.checkpoints()))
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("WorldModelEnvRunner" in " ".join(member.cmdline()) for member in family if member.is_running())
    process.kill()
    process.communicate(timeout=60)
    _, left = psutil.wait_procs(family, timeout=120)
    assert not left
    reached = store.checkpoints()[-1][1].env_steps
    finish(start("resume", "run", "--env-steps", str(reached + 400)))
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    steps = [row["env_steps"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] >= reached + 400
    assert rows[-1]["updates"] > 0

"""A training whose process is killed beyond its last checkpoint, and goes on: what MLflow has of it."""

import subprocess
import sys
import time

from mlflow import MlflowClient
from oneiros.platform.tracking import Tracker, read_metrics
from oneiros.platform.tracking.mlflow_run import last_sent

TRAINING = """
import sys, time
from pathlib import Path
from oneiros.platform.tracking import RunDirectory, Tracker
directory = RunDirectory.open(Path(sys.argv[1]))
tracker = Tracker(directory, directory.config())
for step in range(1, 10**6):
    tracker.record({"loss": float(step)}, 10 * step)
    if step % 5 == 0:
        tracker.record({"evaluation/return_mean": float(step)}, 10 * step)
    time.sleep(0.05)
"""
CHECKPOINT = 30


def test_every_figure_is_there_once_a_step(new_run):
    directory, config = new_run(system_metrics=False)
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(directory.path)])
    try:
        deadline = time.monotonic() + 200
        # Steps beyond the checkpoint have been sent, and an evaluation among them.
        while not ((sent := last_sent(directory)) and sent.metrics > 0 and _sent_to(directory, sent.metrics) > 100):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait(60)
    killed_at = read_metrics(directory.metrics_file)[-1]["env_steps"]

    directory.resume(config, {}, CHECKPOINT)
    tracker = Tracker(directory, config)
    # It evaluates at other steps this time, as a run with env runners does.
    for step in range(CHECKPOINT + 10, killed_at + 100, 10):
        tracker.record({"loss": -1.0}, step)
        if step % 70 == 0:
            tracker.record({"evaluation/return_mean": -1.0}, step)
    assert tracker.close("FINISHED", timeout=200)

    client = MlflowClient(tracker.uri)
    loss = client.get_metric_history(tracker.run_id, "loss")
    assert [point.step for point in loss] == list(range(10, killed_at + 100, 10))
    assert [point.value for point in loss] == [
        float(n) if 10 * n <= killed_at else -1.0 for n in range(1, len(loss) + 1)
    ]
    evaluations = [point.step for point in client.get_metric_history(tracker.run_id, "evaluation/return_mean")]
    assert evaluations == sorted(set(evaluations)) and evaluations[0] == 50
    run = client.get_run(tracker.run_id)
    assert run.data.tags["oneiros.retaken_steps"] == f"{CHECKPOINT + 1}..{killed_at}"
    # The record beside the checkpoints has what came of it in the end.
    rows = [row for row in read_metrics(directory.metrics_file) if "loss" in row]
    assert [row["loss"] for row in rows] == [float(n) if n <= 3 else -1.0 for n in range(1, len(rows) + 1)]


def _sent_to(directory, offset):
    """The env steps of the last line that was sent."""
    line = directory.metrics_file.read_bytes()[:offset].splitlines()[-1]
    return int(line.partition(b'"env_steps": ')[2].partition(b",")[0])

"""Sweeps: real trainings on Ray Tune, nested in MLflow."""

import json
import os
from pathlib import Path

import pytest
from gymnasium import spaces
from oneiros.platform.checkpoint import Description
from oneiros.platform.config import ConfigError, Layer
from oneiros.platform.jobs.packages import stage_plugin
from oneiros.platform.jobs.search_space import read_space
from oneiros.platform.tracking import RunDirectory

CONFIG = """
env: corridors/short
agent: linear
engine: local
env_steps: 3000
learning_starts: 64
train_ratio: 4
num_envs_per_runner: 2
tracking: {every_seconds: 0.2}
evaluation: {episodes: 2}
"""


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_trials_are_compared_ended_early_and_nested_under_one_run(process, plugin, tmp_path):
    from mlflow import MlflowClient

    stage_plugin(plugin, tmp_path / "staged")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    # The best first: whatever comes later lags behind it and is ended at the first look.
    (tmp_path / "space.yaml").write_text("env_options.prize: {grid: [9, 1, -1]}\nseed: {integer: [3, 7]}\n")
    (folder,) = (path for path in (tmp_path / "staged/unpacked").iterdir())
    words = [
        "--space",
        tmp_path / "space.yaml",
        "--sweep-dir",
        tmp_path / "runs/sweep",
        "--samples",
        1,
        "--concurrent",
        1,
    ]
    ran = process(
        *("sweep", tmp_path / "tiny.yaml", *words, "--asha", "--grace", 300, "--json", tmp_path / "out.json"),
        PYTHONPATH=os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        RAY_AUTH_MODE="disabled",
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr  # One trial has failed.
    out = json.loads((tmp_path / "out.json").read_text())
    best, *others, failed = out["trials"]
    assert (best["state"], best["values"]["env_options.prize"]) == ("done", 9)
    assert best == out["best"] and best["env_steps"] >= 3000 and 3 <= best["values"]["seed"] <= 7
    (lagging,) = others
    assert lagging["state"] == "stopped" and 300 <= lagging["env_steps"] < 3000
    # Some episodes end without the prize.
    assert 0 < lagging["metric"] <= 1 < best["metric"] <= 9
    assert failed["state"] == "failed" and "no such prize" in failed["error"]
    assert "Best: " + best["run_dir"] in ran.stdout
    assert "trial-00002 failed: OverflowError: no such prize" in ran.stdout and "Traceback" not in ran.stderr

    for trial in (best, lagging):
        run = RunDirectory.open(tmp_path / "runs/sweep" / os.path.basename(trial["run_dir"]))
        assert run.config().seed == trial["values"]["seed"] and run.find_checkpoint().is_dir()

    client = MlflowClient(f"sqlite:///{(tmp_path / 'runs/mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name("oneiros")
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop(out["mlflow_run"])
    assert parent.info.status == "FINISHED" and parent.data.metrics["best/return"] == best["metric"]
    assert parent.data.tags["best.env_options.prize"] == "9"
    assert {"space.yaml", "sweep.json"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    states = sorted(run.info.status for run in runs.values())
    assert states == ["FAILED", "FINISHED", "KILLED"]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_sweep_runs_as_a_job(head, cluster, plugin, tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "space.yaml").write_text("env_options.prize: {grid: [1, 9]}\n")
    words = ["--space", tmp_path / "space.yaml", "--sweep-dir", tmp_path / "sweep", "--plugin", plugin]
    more = ["--set", "env_steps=300", "--set", "tracking.mlflow=false", "--cpus", 0.5, "--follow"]
    ran = cluster("sweep", tmp_path / "tiny.yaml", *words, *more, "--address", head.address, "--job-id", "sweep")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 trials in" in ran.stdout and f"Best: {tmp_path / 'sweep'}" in ran.stdout
    assert "Job sweep: succeeded" in ran.stderr
    trials = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert sorted(trial["values"]["env_options.prize"] for trial in trials) == [1, 9]
    assert all(RunDirectory.open(Path(trial["run_dir"])).find_checkpoint().is_dir() for trial in trials)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "varies nothing"),
        ("seed: [1, 2]", r"seed in .* must say how it varies, such as \{choice: \[1, 2\]\}"),
        ("seed: {gird: [1, 2]}", "varies by 'gird', which is unknown: did you mean grid?"),
        ("seed: {grid: 3}", "must list its values"),
        ("a: {uniform: [2, 1]}", "with LOW below HIGH"),
        ("a: {uniform: [1, 2, 3]}", "with LOW below HIGH"),
        ("a: {loguniform: [0, 1]}", "begins above 0"),
        ("a: {integer: [0, 1.5]}", "between whole numbers"),
    ],
)
def test_a_space_that_is_none_says_why(tmp_path, text, sentence):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?")):
        read_space(tmp_path / "space.yaml")


def test_a_space_knows_its_size_and_its_corners(tmp_path):
    (tmp_path / "space.yaml").write_text("a: {grid: [0, 1, 2]}\nb: {grid: [x, y]}\nc: {loguniform: [1e-5, 1e-3]}\n")
    space = read_space(tmp_path / "space.yaml")
    assert space.grid_size == 6 and not space.is_grid
    corners = space.corners()
    assert {corner["a"] for corner in corners} == {0, 1, 2} and {corner["c"] for corner in corners} == {1e-5, 1e-3}
    domains = space.domains()
    assert all(1e-5 <= domains["c"].sample() <= 1e-3 for _ in range(20))


@pytest.mark.parametrize(
    ("space", "words", "sentence"),
    [
        ("seed: {grid: [0, -1]}", [], "seed must be at least 0, not -1 (set by the sweep)."),
        ("learning_rat: {uniform: [0, 1]}", [], "did you mean hyper.learning_rate?"),
        ("seed: {grid: [0]}", ["--mode", "best"], "--mode must be max or min"),
    ],
)
def test_every_value_is_checked_before_anything_starts(oneiros, tmp_path, monkeypatch, space, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(space)
    code, out, err = oneiros("sweep", "CartPole-v1", "--space", "space.yaml", *words)
    assert code == 2 and out == "" and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


class Engine:
    """Does nothing, and remembers how it began."""

    env_steps = 100

    def __init__(self):
        self.begun = []

    def begin_from(self, checkpoint, reset):
        self.begun.append(("from", str(checkpoint), reset))

    def prefill(self, place):
        self.begun.append(("prefill", place))

    def restore(self, path):
        self.begun.append(("restore", path.name))

    def hurry(self):
        pass

    def save(self, path):
        raise OSError("nothing to be saved")

    def close(self):
        self.begun.append("closed")


def test_a_trial_begins_as_a_run_does_and_passes_over_damaged_checkpoints(tmp_path, monkeypatch):
    from oneiros.platform.cli.interruption import Interruption
    from oneiros.platform.cli.sweep_trial import Plan, Reports, Trial, _run_directory

    monkeypatch.setattr("oneiros.platform.training.engine.open_engine", lambda config: engine)
    quiet = {"tracking.mlflow": False, "tracking.videos": False, "evaluation.at_end": False, "env": "CartPole-v1"}
    begin = {"data.prefill": "episodes", "start.checkpoint": "before", "start.reset": ["actor"], "env_steps": 100}
    resolved = Plan((Layer("test", {**quiet, **begin}),), tmp_path, "return", None, None).resolve({}, "trial-0")

    trial = Trial.__new__(Trial)
    trial._interruption, trial._reports = Interruption(lambda text: None), Reports("return")
    trial._run, checkpoint = _run_directory(resolved)
    engine = Engine()
    assert trial._drive(resolved, checkpoint).reason == "done"
    assert engine.begun == [("from", "before", ("actor",)), ("prefill", "episodes"), "closed"]

    for steps, text in ((10, "whole"), (20, "damaged")):
        trial._run.store().save(steps, lambda partial, steps=steps: described(partial, steps))
        if text == "damaged":
            (trial._run.store().path(steps) / "file").write_text(text)
    trial._run, checkpoint = _run_directory(resolved)
    engine = Engine()
    trial._drive(resolved, checkpoint)
    assert engine.begun == [("restore", "step-000000000010"), "closed"]


def described(partial, steps):
    (partial / "file").write_text("whole")
    space = spaces.Discrete(2)
    return Description("dreamerv3", {"env_steps": steps, "updates": 0}, {}, space, space, {})

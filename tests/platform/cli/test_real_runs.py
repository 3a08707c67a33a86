"""The whole way with a real agent: train, be interrupted, resume, evaluate."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from oneiros.platform.tracking import read_metrics

ONEIROS = os.path.join(os.path.dirname(sys.executable), "oneiros")

INTERRUPTIONS = [
    pytest.param(signal.SIGINT, 130, ["--engine", "local"], id="ctrl-c"),
    pytest.param(
        signal.SIGTERM, 143, ["--engine", "rllib", "--num-runners", "1"], id="sigterm-ray", marks=pytest.mark.ray
    ),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code", "engine"), INTERRUPTIONS)
def test_an_interrupted_run_is_resumed_and_evaluated(tiny, tmp_path, number, code, engine):
    command = [ONEIROS, "train", "CartPole-v1", "tiny.yaml", "--env-steps", "100000000", "--run-dir", "run", *engine]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and any("loss/dyn" in row for row in read_metrics(metrics))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Go on with: oneiros resume run" in out and "Traceback" not in err
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    reached = int(checkpoint.name.removeprefix("step-"))

    resume = [ONEIROS, "resume", "run", "--env-steps", str(reached + 300), "--json", "out.json"]
    done = subprocess.run(resume, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["env_steps"] >= reached + 300 and figures["evaluation"]["episodes"] == 2
    steps = [row["env_steps"] for row in read_metrics(metrics)]
    assert steps == sorted(steps) and steps[0] <= reached < steps[-1]


@pytest.mark.timeout(120)
def test_a_finished_run_can_be_evaluated_listed_and_explained(tiny, oneiros, tmp_path):
    words = ["--engine", "local", "--env-steps", "400", "--seed", "3", "--run-dir", "runs/a"]
    code, out, _ = oneiros("train", "CartPole-v1", "tiny.yaml", *words)
    assert code == 0 and "done" in out
    config = yaml.safe_load((tmp_path / "runs" / "a" / "config.yaml").read_text())
    assert config["env_steps"] == 400 and config["hyper"]["batch_size"] == 2

    code, out, _ = oneiros("evaluate", "runs/a", "--episodes", 3, "--json", "ev.json", "--video", "episode.gif")
    figures = json.loads((tmp_path / "ev.json").read_text())
    assert code == 0 and "Evaluation over 3 episodes" in out
    assert figures["episodes"] == 3 and figures["return_mean"] > 0 and figures["length_mean"] == figures["return_mean"]
    assert {"return_std", "env_steps"} <= set(figures) and figures["env_steps"] >= 400
    assert (tmp_path / "episode.gif").stat().st_size > 0
    again = oneiros("evaluate", "runs/a", "--episodes", 3, "--json", "again.json", "--checkpoint", figures["env_steps"])
    assert again[0] == 0 and json.loads((tmp_path / "again.json").read_text())["returns"] == figures["returns"]

    config["evaluation"]["env_options"] = {"time_limit": 6}
    (tmp_path / "runs" / "a" / "config.yaml").write_text(yaml.safe_dump(config))
    for words, length in (([], 6), (["--env-option", "time_limit=4"], 4)):
        assert oneiros("evaluate", "runs/a", "--episodes", 2, "--json", "short.json", *words)[0] == 0
        short = json.loads((tmp_path / "short.json").read_text())
        assert short["lengths"] == [length, length] and short["env_options"] == {"time_limit": length}
    for word, sentence in (
        ("time_limit", "--env-option takes key=value, such as worlds=train, not 'time_limit'."),
        ("foo=3", "CartPole-v1 takes no option 'foo'"),
        ("time_limit=-1", "time_limit"),
    ):
        code, out, err = oneiros("evaluate", "runs/a", "--env-option", word)
        assert code == 2 and out == "" and sentence in err and err.count("\n") == 1

    code, out, _ = oneiros("runs", "--json", "runs.json")
    (row,) = json.loads((tmp_path / "runs.json").read_text())
    assert code == 0 and "runs/a" in out and row["env"] == "CartPole-v1" and row["seed"] == 3
    assert row["env_steps"] >= 400 and row["evaluation"] > 0 and row["unsent_bytes"] == 0

    code, out, _ = oneiros("config", "runs/a", "--json", "config.json")
    settings = json.loads((tmp_path / "config.json").read_text())
    assert code == 0 and settings["seed"] == {"value": 3, "from": "--seed"}
    assert settings["hyper.batch_size"] == {"value": 2, "from": "tiny.yaml"}
    assert settings["hyper.unimix"]["from"] == "default"
    assert settings["preset"] == {"value": "two_cores", "from": "tiny.yaml"}


@pytest.mark.timeout(120)
def test_a_run_is_recorded_in_mlflow_and_says_how_to_look(tiny, oneiros, tmp_path):
    from mlflow import MlflowClient

    words = ["--engine", "local", "--env-steps", "300", "--run-dir", "runs/a", "--set", "tracking.mlflow=true"]
    code, out, _ = oneiros("train", "CartPole-v1", "tiny.yaml", *words)
    store = f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"
    assert code == 0 and f"MLflow page: mlflow ui --backend-store-uri {store}" in out
    client = MlflowClient(store)
    sent = json.loads((tmp_path / "runs" / "a" / "mlflow.json").read_text())
    run = client.get_run(sent["run_id"])
    assert run.info.status == "FINISHED" and run.data.params["hyper.batch_size"] == "2"
    assert {"return", "length", "loss/dyn", "updates_per_s", "train_ratio", "policy_age"} <= set(run.data.metrics)
    assert {"evaluation/return_mean", "system/cpu_utilization_percentage"} <= set(run.data.metrics)
    assert run.data.tags["oneiros.checkpoint"].startswith(f"{tmp_path.resolve()}/runs/a/checkpoints/step-")
    assert {"config.yaml", "provenance.json", "evaluation.json"} <= {
        file.path for file in client.list_artifacts(sent["run_id"])
    }
    stored = client.download_artifacts(sent["run_id"], "checkpoint", str(tmp_path))
    assert not list(Path(stored).rglob("replay"))
    words = ["--engine", "local", "--env-steps", "100", "--from", stored, "--set", "evaluation.at_end=false"]
    code, _, _ = oneiros("train", "CartPole-v1", "tiny.yaml", *words)
    assert code == 0


def test_the_configuration_that_train_would_use_is_shown_with_its_origins(tiny, oneiros, tmp_path):
    words = ["CartPole-v1", "tiny.yaml", "--size", "12m", "--set", "learning_rate=1e-3", "--json", "config.json"]
    code, out, _ = oneiros("config", *words)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert code == 0 and settings["hyper.size"] == {"value": "12m", "from": "--size"}
    assert settings["hyper.learning_rate"] == {"value": 1e-3, "from": "--set"}
    assert settings["train_ratio"] == {"value": 0.5, "from": "tiny.yaml"}
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(settings)


def test_a_configuration_file_may_name_the_environment(tiny, oneiros, tmp_path):
    tiny("all.yml", env="memory/cue-5")
    code, _, _ = oneiros("config", "all.yml", "--json", "config.json")
    settings = json.loads((tmp_path / "config.json").read_text())
    assert code == 0 and settings["env"] == {"value": "memory/cue-5", "from": "all.yml"}

import json
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from oneiros.platform.tracking import Tracker
from oneiros.platform.tracking.mlflow_run import last_sent
from oneiros.platform.tracking.provenance import provenance
from oneiros.platform.tracking.sender import catch_up, unsent_bytes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run in a store that did not exist, resumed once, and a second run nested under it."""
    from oneiros.platform.config import RunConfig
    from oneiros.platform.tracking import RunDirectory

    home = tmp_path_factory.mktemp("runs")

    def tracker(name, **tracking):
        settings = {"every_seconds": 0.05, "tags": {"team": "a"}, **tracking}
        config = RunConfig(env="CartPole-v1", hyper={"size": "1m"}, run_dir=home / name, tracking=settings)
        directory = RunDirectory(config.directory)
        directory.path.mkdir(exist_ok=True)
        if not directory.config_file.exists():
            directory.write_config(config)
            directory.provenance_file.write_text(json.dumps(provenance(["oneiros", "train", "a b"])))
        return Tracker(directory, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        started = time.monotonic()
        first = tracker("first")
        first.record({"loss/image": 1.5, "odd@name": 2.0, "undefined": float("nan")}, env_steps=100)
        began = time.monotonic() - started
        first.tags({"best": "yes"})
        assert first.close("KILLED", timeout=60)
        resumed = tracker("first")
        resumed.record({"loss/image": 1.0}, env_steps=200)
        assert resumed.close("FINISHED", timeout=60)
        nested = tracker("second", parent_run=first.run_id)
        assert nested.close("FINISHED", timeout=60)
    return home, first, resumed, nested, began


def test_the_store_lies_beside_the_runs(recorded):
    home, first, *_ = recorded
    assert first.uri == f"sqlite:///{home.resolve()}/mlflow.db" and (home / "mlflow.db").exists()
    assert (home / "mlartifacts").is_dir()


def test_making_the_store_does_not_delay_the_training(recorded):
    assert recorded[-1] < 1.0


def test_the_run_holds_configuration_commit_and_figures(recorded):
    _, first, resumed, *_ = recorded
    assert resumed.run_id == first.run_id
    client = MlflowClient(first.uri)
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.params["hyper.size"] == "1m" and run.data.params["replay.capacity"] == "5000000"
    assert run.data.tags["team"] == "a" and run.data.tags["best"] == "yes"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert run.data.tags["mlflow.source.name"] == "oneiros train 'a b'"
    history = client.get_metric_history(first.run_id, "loss/image")
    assert [(point.step, point.value) for point in history] == [(100, 1.5), (200, 1.0)]
    assert run.data.metrics["odd_name"] == 2.0
    assert run.data.metrics["system/cpu_utilization_percentage"] >= 0
    artifact = download_artifacts(run_id=first.run_id, artifact_path="config.yaml", tracking_uri=first.uri)
    assert yaml.safe_load(Path(artifact).read_text())["env"] == "CartPole-v1"


def test_a_run_of_a_sweep_is_nested(recorded):
    _, first, _, nested, _ = recorded
    run = MlflowClient(first.uri).get_run(nested.run_id)
    assert run.data.tags["mlflow.parentRunId"] == first.run_id


def test_a_refused_entry_does_not_hold_up_the_rest(new_run, caplog):
    directory, config = new_run(system_metrics=False)
    tracker = Tracker(directory, config)
    tracker.tags({"x" * 300: "too long a name"})
    tracker.tags({"good": "yes"})
    tracker.record({"loss": 1.0}, env_steps=1)
    assert tracker.close("FINISHED", timeout=60)
    run = MlflowClient(tracker.uri).get_run(tracker.run_id)
    assert run.data.tags["good"] == "yes" and run.data.metrics["loss"] == 1.0
    assert sum("refuses" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("how", ["deleted by its user", "unknown to the store"])
def test_a_run_that_the_store_lost_is_told_again_in_full(new_run, how):
    directory, config = new_run(system_metrics=False)
    first = Tracker(directory, config)
    first.record({"loss": 1.0}, env_steps=1)
    assert first.close("KILLED", timeout=60)
    if how == "deleted by its user":
        MlflowClient(first.uri).delete_run(first.run_id)
    else:
        sent = json.loads(directory.mlflow_file.read_text())
        directory.mlflow_file.write_text(json.dumps({**sent, "run_id": "0" * 32}))
    again = Tracker(directory, config)
    again.record({"loss": 2.0}, env_steps=2)
    assert again.close("FINISHED", timeout=60)
    assert again.run_id != first.run_id
    history = MlflowClient(again.uri).get_metric_history(again.run_id, "loss")
    assert [point.step for point in history] == [1, 2]


def test_what_a_finished_run_could_not_send_is_sent_on_demand(new_run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    directory, config = new_run(system_metrics=False)
    away = Tracker(directory, config)
    away.record({"loss": 1.0}, env_steps=1)
    assert not away.close("KILLED", timeout=0.5)
    assert unsent_bytes(directory) == directory.metrics_file.stat().st_size

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert catch_up(directory, timeout=60)
    assert unsent_bytes(directory) == 0
    sent = last_sent(directory)
    run = MlflowClient(sent.uri).get_run(sent.run_id)
    assert run.data.metrics["loss"] == 1.0 and run.info.status == "KILLED"

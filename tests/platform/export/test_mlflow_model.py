"""The policy as an MLflow model: loaded and served by MLflow, in processes that know nothing of the run."""

import json
import subprocess
import sys

import mlflow
import numpy as np
import pytest
from http_server import call, serving
from mlflow import MlflowClient
from oneiros.platform.export import export_policy, load
from oneiros.platform.export.mlflow_model import registered_name, save_model
from oneiros.platform.export.step_format import first_step
from oneiros.platform.tracking import RunDirectory, Tracker
from tiny_run import tiny


@pytest.fixture(scope="module")
def folder(checkpoint_of, tmp_path_factory):
    checkpoint, _ = checkpoint_of("Pendulum-v1")
    to = tmp_path_factory.mktemp("export") / "policy"
    export_policy(checkpoint, to, env="Pendulum-v1")
    return to


@pytest.fixture(scope="module")
def model(folder):
    save_model(folder, folder.parent / "model")
    return folder.parent / "model"


def test_no_file_of_it_is_a_pickle(model):
    names = sorted(path.name for path in model.rglob("*") if path.is_file())
    assert "pyfunc_model.py" in names and "policy.safetensors" in names and "input_example.json" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    description = (model / "MLmodel").read_text()
    # Where MLflow would name the file of a pickled class, there is code.
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in description and "python_model:" not in description


FRESH = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
example = model.input_example
first = model.predict(example)
state = {key: value for key, value in first.items() if key.startswith("policy_state/")}
second = model.predict({**example, **state, "is_first": ~example["is_first"]})
print(json.dumps({"first": first["action"].tolist(), "second": second["action"].tolist()}))
"""


def test_a_fresh_process_loads_it_and_passes_the_state_on(model, folder):
    ran = subprocess.run([sys.executable, "-c", FRESH, str(model)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "type hints" not in ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    policy = load(folder)
    observation = first_step(policy)["obs"]
    first, state = policy.act(observation)
    second, _ = policy.act(observation, state)
    np.testing.assert_allclose(answers["first"], first, atol=1e-5)
    np.testing.assert_allclose(answers["second"], second, atol=1e-5)


@pytest.fixture(scope="module")
def scoring(model):
    """MLflow's scoring server, as 'mlflow models serve' runs it."""
    from mlflow.pyfunc import scoring_server

    with serving(scoring_server.init(mlflow.pyfunc.load_model(str(model)))) as address:
        yield lambda body: call("POST", f"{address}/invocations", body)


def listed(arrays):
    return {key: value.tolist() for key, value in arrays.items()}


def test_the_scoring_server_takes_the_state_in_and_gives_it_out(scoring, folder):
    policy = load(folder)
    inputs = first_step(policy, batch=2)
    status, answer = scoring({"inputs": listed(inputs)})
    assert status == 200, answer
    out = answer["predictions"]
    action, state = policy.act(inputs["obs"])
    np.testing.assert_allclose(out["action"], action, atol=1e-5)
    assert {f"policy_state/{key}" for key in state} == out.keys() - {"action"}
    following = {**listed(inputs), **{k: v for k, v in out.items() if k != "action"}, "is_first": [False, True]}
    again = scoring({"inputs": following, "params": {"mode": "eval"}})[1]["predictions"]
    expected, _ = policy.act(inputs["obs"], state, np.array([False, True]))
    np.testing.assert_allclose(again["action"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"obs": [[0.0, 1.0]]}, "obs"),
        ({"obs": None}, "obs"),
        ({"is_first": None}, "is_first"),
    ],
)
def test_the_scoring_server_refuses_what_does_not_fit(scoring, folder, change, says):
    inputs = listed(first_step(load(folder)))
    for key, value in change.items():
        inputs.pop(key) if value is None else inputs.update({key: value})
    status, answer = scoring({"inputs": inputs})
    assert status == 400 and says in str(answer)


def test_a_training_logs_it_and_registers_the_better_version_as_champion(checkpoint_of, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checkpoint, _ = checkpoint_of("Pendulum-v1")
    ids = []
    for name, score in [("one", -200.0), ("two", -150.0), ("three", -300.0)]:
        config = tiny("Pendulum-v1", run_dir=tmp_path / "runs" / name)
        directory = RunDirectory(config.directory)
        directory.path.mkdir(parents=True)
        directory.write_config(config)
        export_policy(checkpoint, directory.policy, env=config.env)
        tracker = Tracker(directory, config)
        tracker.policy(directory.policy, score)
        assert tracker.close(timeout=60)
        ids.append(tracker.run_id)
    client = MlflowClient(tracker.uri)
    name = registered_name("oneiros", "Pendulum-v1", "dreamerv3")
    champion = client.get_model_version_by_alias(name, "champion")
    assert str(champion.version) == "2" and champion.run_id == ids[1]
    assert client.get_run(ids[2]).data.tags["oneiros.model"] == f"models:/{name}/3"
    outputs = client.get_run(ids[2]).outputs.model_outputs
    assert [client.get_logged_model(output.model_id).status.value for output in outputs] == ["READY"]
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(tracker.uri)
        model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
        assert model.predict(model.input_example)["action"].shape == (1, 1)
    finally:
        mlflow.set_tracking_uri(before)

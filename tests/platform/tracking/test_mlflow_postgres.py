"""An MLflow server on a real PostgreSQL, as deploy/mlflow runs it: training is recorded there."""

import getpass
import os
import pwd
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from oneiros.platform.cli import main
from ports import free_port

pytestmark = pytest.mark.timeout(240)


def find(name):
    """A program of PostgreSQL's; Debian keeps them off the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


@pytest.fixture
def postgres(tmp_path_factory):
    """The URI of an empty database of a PostgreSQL of this test's own."""
    initdb, pg_ctl = find("initdb"), find("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("no PostgreSQL (Debian: apt-get install postgresql)")
    folder = Path("/tmp") / f"oneiros-postgres-{os.getpid()}"
    folder.mkdir()
    # PostgreSQL refuses to run as root.
    who = {}
    if getpass.getuser() == "root":
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def run(*words):
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, **who)
        assert done.returncode == 0, done.stdout + done.stderr

    port = free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(initdb, "--pgdata", folder / "data", "--auth=trust", "--username=mlflow", "--no-sync")
        run(pg_ctl, "--pgdata", folder / "data", "--options", options, "--log", folder / "log", "--wait", "start")
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [pg_ctl, "--pgdata", folder / "data", "--mode=immediate", "stop"], capture_output=True, check=False, **who
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_server(postgres, tmp_path):
    """An MLflow server on that database, with its artifacts in a folder."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", postgres, "--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, env=environment)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=1):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.2)
        yield uri
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def test_a_training_is_recorded_in_postgres(postgres_server, postgres, tmp_path, monkeypatch):
    import psycopg
    from mlflow import MlflowClient
    from oneiros.platform.tracking import read_metrics

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres_server)
    settings = ["size=1m", "batch_size=2", "batch_length=8", "learning_starts=64", "train_ratio=0.5"]
    settings += ["evaluation.episodes=1", "tracking.every_seconds=0.1", "num_envs_per_runner=2"]
    words = [
        "train",
        "CartPole-v1",
        "--engine",
        "local",
        "--device",
        "cpu",
        "--env-steps",
        "300",
        "--run-dir",
        "runs/a",
    ]
    assert main.run([*words, *(word for setting in settings for word in ("--set", setting))]) == 0

    rows = read_metrics(tmp_path / "runs/a/metrics.jsonl")
    client = MlflowClient(postgres_server)
    experiment = client.get_experiment_by_name("oneiros")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["env_steps"] == "300"
    history = client.get_metric_history(run.info.run_id, "train_ratio")
    assert {point.step for point in history} == {row["env_steps"] for row in rows if "train_ratio" in row}
    assert "evaluation.json" in {file.path for file in client.list_artifacts(run.info.run_id)}

    # It is PostgreSQL that holds it, not a file that the server fell back to.
    with psycopg.connect(postgres.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM metrics WHERE run_uuid = %s AND key = 'train_ratio'", (run.info.run_id,))
        assert cursor.fetchone() == (len(history),)

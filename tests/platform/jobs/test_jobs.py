"""Jobs on a real Ray head with a dashboard and token authentication."""

import json
import time

import pytest
from oneiros.platform.tracking import RunDirectory, read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CONFIG = """
env: corridors/short
agent: linear
learning_starts: 64
train_ratio: 4
num_envs_per_runner: 2
tracking: {mlflow: false, every_seconds: 0.2}
evaluation: {episodes: 2}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


def test_a_job_takes_its_packages_along_and_a_stopped_one_saves(cluster, plugin, config, tmp_path):
    take = ["--plugin", plugin, "--set", "env_options.note=" + str(tmp_path / "note")]
    endless = cluster(
        "submit",
        config,
        *take,
        "--run-dir",
        tmp_path / "endless",
        "--env-steps",
        10**9,
        "--json",
        tmp_path / "job.json",
    )
    assert endless.returncode == 0, endless.stderr
    assert "The algorithm linear is not installed here" in endless.stderr
    job = json.loads((tmp_path / "job.json").read_text())["job"]
    assert f"Job {job}" in endless.stdout and f"oneiros jobs logs -f {job}" in endless.stderr

    words = ["--num-runners", 1, "--env-steps", 600, "--cpus", 0.5, "--job-id", "short", "--ship-package", "--follow"]
    short = cluster("submit", config, *take, "--run-dir", tmp_path / "short", *words)
    assert short.returncode == 0, short.stdout + short.stderr
    assert "Evaluation over 2 episodes" in short.stdout and "Job short: succeeded" in short.stderr
    run = RunDirectory.open(tmp_path / "short")
    assert run.config().agent == "linear" and read_metrics(run.metrics_file)[-1]["env_steps"] >= 600
    assert run.find_checkpoint().is_dir()
    used = (tmp_path / "note").read_text().split()
    assert "runtime_resources" in used[0] and "runtime_resources" in used[1]

    metrics = RunDirectory(tmp_path / "endless").metrics_file
    wait_for(lambda: metrics.exists() and read_metrics(metrics))
    listed = cluster("jobs", "--json", tmp_path / "jobs.json")
    states = {one["id"]: one["status"] for one in json.loads((tmp_path / "jobs.json").read_text())}
    assert states == {job: "RUNNING", "short": "SUCCEEDED"} and str(tmp_path / "endless") in listed.stdout
    assert "told to stop" in cluster("jobs", "stop", job).stdout

    def status():
        asked = cluster("jobs", "status", job, "--json", tmp_path / "status.json")
        assert asked.returncode == 0, asked.stderr
        return json.loads((tmp_path / "status.json").read_text())

    wait_for(lambda: status()["status"] == "STOPPED")
    assert RunDirectory.open(tmp_path / "endless").find_checkpoint().is_dir()
    assert "saving a checkpoint" in cluster("jobs", "logs", job).stdout
    assert f"{job} has ended already: stopped." in cluster("jobs", "stop", job).stdout


def test_a_job_that_cannot_run_says_why_and_fails(cluster, config, tmp_path):
    words = ["--set", "agent=dreamerv3", "--set", "env=corridors/short", "--run-dir", tmp_path / "run"]
    failed = cluster("submit", config, *words, "--job-id", "broken", "--follow")
    assert failed.returncode == 1 and "Job broken: failed" in failed.stderr
    assert "unknown environment 'corridors/short'" in failed.stdout
    assert cluster("jobs", "status", "broken").returncode == 1
    again = cluster("submit", config, *words, "--job-id", "broken")
    assert again.returncode == 2 and "choose another --job-id" in again.stderr


def test_a_wrong_token_a_missing_one_and_an_unknown_job_get_one_sentence(head, process, cluster):
    for secret in ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        refused = process("jobs", "--address", head.address, **secret)
        assert refused.returncode == 1 and "wants another token" in refused.stderr
        assert refused.stderr.count("\n") == 1
    text = '{"Authorization": "Bearer ' + head.token.read_text() + '"}'
    assert process("jobs", "--address", head.address, RAY_AUTH_MODE="disabled", RAY_JOB_HEADERS=text).returncode == 0
    unknown = cluster("jobs", "logs", "-f", "nothing")
    assert unknown.returncode == 2 and "job 'nothing' is unknown at http://127.0.0.1" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["submit", "CartPole-v1"], "give --run-dir an absolute path"),
        (["submit", "CartPole-v1", "--run-dir", "runs/a"], "give --run-dir an absolute path"),
        (["submit", "nothing.yaml", "--run-dir", "/shared/a"], "configuration file nothing.yaml does not exist."),
        (["submit", "CartPole-v1", "--set", "train_rato=3", "--run-dir", "/a"], "did you mean train_ratio?"),
        (["submit", "CartPole-v1", "--run-dir", "/a", "--env", "NOT_SET_HERE"], "--env NOT_SET_HERE: it is not set"),
        (["submit", "CartPole-v1", "--run-dir", "/a", "--address", "head:6379"], "such as http://HEAD:8265"),
        (["submit", "--run-dir", "/a"], "ENV must be given"),
        (["submit", "CartPole-v1", "--run-dir", "/a", "--prefill", "data"], "--prefill must be an absolute path"),
        (["submit", "CartPole-v1", "--run-dir", "/a", "--reset", "actor"], "--reset goes with --from"),
        (["jobs", "--address", "head"], "such as http://HEAD:8265, not 'head'"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_and_exit_code_2(oneiros, words, sentence):
    code, out, err = oneiros(*words)
    assert code == 2 and out == "" and sentence in err and err.count("\n") == 1


class SentJobs:
    """Keeps what would be sent."""

    sent = None

    def __init__(self, address):
        self.address = address or "http://here:8265"

    def submit(self, submission):
        SentJobs.sent = submission
        return "made"


@pytest.fixture
def sent(monkeypatch):
    monkeypatch.setattr("oneiros.platform.jobs.client.Jobs", SentJobs)
    return lambda: SentJobs.sent


def test_what_a_training_begins_with_is_named_to_the_cluster(oneiros, sent):
    begins = ["--prefill", "/shared/data", "--from", "/shared/runs/old", "--reset", "actor,critic"]
    code, out, err = oneiros("submit", "CartPole-v1", "--run-dir", "/shared/a", *begins, "--seed", 3)
    assert code == 0 and out == "Job made\n"
    assert "/shared/data is not on this machine: it is checked on the cluster." in err
    assert sent().words == ("train", "CartPole-v1", "--seed", "3", "--run-dir", "/shared/a", *begins)
    assert sent().metadata == {"oneiros.run_dir": "/shared/a", "oneiros.env": "CartPole-v1"}

    code, _, _ = oneiros("submit", "--run-dir", "/shared/a", "--offline", "minari:D4RL/door/human-v2")
    assert code == 0 and sent().words == ("train", "--run-dir", "/shared/a", "--offline", "minari:D4RL/door/human-v2")


def test_what_is_on_this_machine_is_checked_here(oneiros, sent, tmp_path):
    (tmp_path / "data").mkdir()
    words = ["--run-dir", "/shared/a", "--offline", tmp_path / "data"]
    code, _, err = oneiros("submit", *words)
    assert code == 2 and "is no data set" in err
    code, _, err = oneiros("submit", "CartPole-v1", "--run-dir", "/shared/a", "--from", tmp_path / "data")
    assert code == 2 and "is not a checkpoint" in err


def test_a_sweep_is_sent_with_its_space(oneiros, sent, tmp_path):
    (tmp_path / "space.yaml").write_text("seed: {grid: [0, 1]}\n")
    (tmp_path / "tiny.yaml").write_text("env: CartPole-v1\n")
    words = ["sweep", tmp_path / "tiny.yaml", "--space", tmp_path / "space.yaml", "--samples", 2, "--asha", "--cpus", 2]
    code, out, _ = oneiros(*words, "--sweep-dir", "/shared/sweep", "--address", "http://head:8265", "--job-id", "x")
    assert code == 0 and out == "Job made\n"
    said = " ".join(sent().words)
    assert said.startswith("sweep tiny.yaml --space space.yaml --sweep-dir /shared/sweep --samples 2")
    assert "--asha" in said and "--cpus 2.0" in said and sent().job_id == "x" and sent().num_cpus == 0
    assert [file.name for file in sent().files] == ["tiny.yaml", "space.yaml"]
    for more, sentence in [
        (["--address", "http://head:8265"], "give --sweep-dir an absolute path"),
        (["--follow"], "--follow go with --address"),
    ]:
        code, _, err = oneiros(*words, *more)
        assert code == 2 and sentence in err


def test_a_cluster_that_is_not_there_is_named(oneiros):
    code, _, err = oneiros("jobs", "--address", "http://127.0.0.1:1")
    assert code == 1 and "no Ray dashboard answers at http://127.0.0.1:1" in err


def test_headers_must_be_json(oneiros, monkeypatch):
    monkeypatch.setenv("RAY_JOB_HEADERS", "Bearer x")
    code, _, err = oneiros("jobs", "--address", "http://127.0.0.1:1")
    assert code == 2 and "RAY_JOB_HEADERS is not JSON" in err

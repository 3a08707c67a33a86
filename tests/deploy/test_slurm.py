"""The Slurm script's own logic, with Slurm, Ray and training played by scripts that write down what they are told."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

PLAYED = {
    "scontrol": 'echo "scontrol $*" >>"$LOG"; if [[ $1 == show ]]; then printf "one\\ntwo\\n"; fi',
    "srun": 'echo "srun $*" >>"$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1 10.0.0.2",
    "ray": 'echo "ray $* mode=$RAY_AUTH_MODE" >>"$LOG"; cat "$RAY_AUTH_TOKEN_PATH" >>"$TOKENS"; '
    "if [[ $1 == start ]]; then exec sleep 60; fi",
    "oneiros": 'echo "oneiros $* address=$RAY_ADDRESS" >>"$LOG"; '
    'trap "echo saved >>$LOG; kill %1; exit 143" TERM; sleep "$TRAINING" & wait',
}


@pytest.fixture
def slurm(tmp_path, deploy):
    """Starts the script as Slurm would."""
    played = tmp_path / "venv/bin"
    played.mkdir(parents=True)
    for name, text in PLAYED.items():
        (played / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (played / name).chmod(0o755)
    processes = []

    def start(*words, training=0.1):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ONEIROS_VENV": str(tmp_path / "venv"),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "one,two",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_GPUS_ON_NODE": "1",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "LOG": str(tmp_path / "log"),
            "TOKENS": str(tmp_path / "tokens"),
            "TRAINING": str(training),
        }
        command = ["bash", str(deploy / "slurm/train.sbatch"), *map(str, words)]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def log(tmp_path):
    path = tmp_path / "log"
    return path.read_text() if path.exists() else ""


def test_a_cluster_on_all_nodes_trains_and_leaves_nothing(slurm, tmp_path):
    process = slurm("CartPole-v1", "--run-dir", tmp_path / "run", "--set", "tracking.tags={a: b c}")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    said = log(tmp_path)
    assert "--nodelist=one --overlap ray start --head --block --node-ip-address=10.0.0.1 --port=24711" in said
    assert "--nodelist=two --overlap ray start --block --address=10.0.0.1:24711 --num-cpus=16 --num-gpus=1" in said
    assert (
        f"oneiros train CartPole-v1 --run-dir {tmp_path}/run --set tracking.tags={{a: b c}} address=10.0.0.1:24711"
        in said
    )
    assert "requeue" not in said and said.count("mode=token") >= 3
    tokens = (tmp_path / "tokens").read_text()
    assert len(tokens) >= 128 and tokens == tokens[:64] * (len(tokens) // 64)
    assert not list(tmp_path.glob(".oneiros-token*"))


def test_a_preempted_training_saves_and_is_requeued_and_resumes(slurm, tmp_path):
    process = slurm("CartPole-v1", f"--run-dir={tmp_path}/run", training=60)
    deadline = time.monotonic() + 60
    while "oneiros train" not in log(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert "saved" in log(tmp_path) and "scontrol requeue 4711" in log(tmp_path)

    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    process = slurm("CartPole-v1", "--run-dir", tmp_path / "run")
    process.communicate(timeout=60)
    assert process.returncode == 0 and f"oneiros resume {tmp_path}/run" in log(tmp_path)


@pytest.mark.parametrize("words", [["CartPole-v1"], ["CartPole-v1", "--run-dir", "runs/a"], ["--run-dir"]])
def test_a_run_directory_that_nodes_do_not_share_is_refused(slurm, tmp_path, words):
    process = slurm(*words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "give --run-dir an absolute path" in err
    assert log(tmp_path) == "" and not list(Path(tmp_path).glob(".oneiros-token*"))

import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from oneiros.platform.config import RunConfig
from oneiros.platform.tracking import RunDirectory
from ports import free_port


@pytest.fixture
def new_run(tmp_path, monkeypatch):
    """Makes a run directory and its configuration."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name="first", **tracking):
        config = RunConfig(
            env="CartPole-v1",
            hyper={"size": "1m", "loss_scales": {"rec": 1.0}},
            run_dir=tmp_path / "runs" / name,
            tracking={"every_seconds": 0.05, **tracking},
        )
        directory = RunDirectory(config.directory)
        directory.path.mkdir(parents=True)
        directory.write_config(config)
        return directory, config

    return make


class Server:
    """A real MLflow server, which can be killed and started again on the same port and store."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        # Its job workers, a dozen processes, have nothing to do with tracking.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()

"""A Ray head with a dashboard and token authentication, and a user's package with an algorithm and an environment."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ports import free_port

FAKES = Path(__file__).resolve().parent.parent / "fakes"
RAY = Path(sys.executable).with_name("ray")

PLUGIN = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "corridors"
version = "0.1"

[project.entry-points."oneiros.envs"]
corridors = "corridors:Corridors"

[project.entry-points."oneiros.algorithms"]
linear = "linear_agent:LinearAgent"

[tool.setuptools]
py-modules = ["corridors", "linear_agent"]
""",
    "corridors.py": """
from pathlib import Path

import gymnasium
import numpy as np
from oneiros.envs import contract
from oneiros.envs.contract import NOTHING, UnknownEnvironment


class Corridor(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, prize=1.0, note=None):
        if prize < 0:
            raise OverflowError("no such prize")
        self.prize = prize
        if note:
            Path(note).write_text(f"{contract.__file__} {__file__}")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.at = max(0, self.at + (1 if action else -1))
        self.steps += 1
        done = self.at == 5
        return np.array([self.at / 5], np.float32), self.prize * done, done, self.steps == 40, {}


class Corridors:
    name = "corridors"
    description = "walk right until the end"
    requirement = NOTHING

    def tasks(self):
        return ["short"]

    def make(self, task, **options):
        if task not in self.tasks():
            raise UnknownEnvironment()
        return Corridor(**options)
""",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    """A project as a user has it, with what an earlier build left in it."""
    folder = tmp_path_factory.mktemp("user") / "corridors"
    folder.mkdir()
    for name, text in PLUGIN.items():
        (folder / name).write_text(text)
    shutil.copy(FAKES / "linear_agent.py", folder)
    (folder / "build/lib").mkdir(parents=True)
    (folder / "build/lib/stale.py").write_text("raise RuntimeError")
    return folder


class Head:
    """``ray start --head`` with a dashboard on this machine's loopback."""

    def __init__(self, folder):
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process = None

    def start(self):
        words = [str(RAY), "start", "--head", "--block", "--port=0", "--num-cpus=3", "--object-store-memory=100000000"]
        words += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}"]
        words += [f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0"]
        words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
        # Unix sockets have short names: pytest's folders are too deep.
        self.short = Path("/tmp") / f"oneiros-{self.port}"
        words.append(f"--temp-dir={self.short}")
        # Nothing of this test's own path: what a job needs must come with it.
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_raylet_start_wait_time_s": "120",
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        }
        with (self.folder / "head.log").open("wb") as log:
            self._process = psutil.Popen(words, stdout=log, stderr=log, env=environment, cwd=self.folder)
        deadline = time.monotonic() + 120
        while not self._listens():
            assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "head.log").read_text()
            time.sleep(0.2)

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        """End the head and everything it started; a process of Ray's outlives its parent otherwise."""
        if self._process is None:
            return
        family = [self._process, *self._process.children(recursive=True)]
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=30)
        shutil.rmtree(self.short, ignore_errors=True)


@pytest.fixture(scope="session")
def head(tmp_path_factory):
    head = Head(tmp_path_factory.mktemp("head"))
    try:
        head.start()
        yield head
    finally:
        head.kill()


@pytest.fixture
def process():
    """Runs ``oneiros`` in a process of its own: Ray reads its token once a process, and starts a cluster of its own."""

    def run(*words, **environment):
        command = [str(Path(sys.executable).with_name("oneiros")), *map(str, words)]
        environment = {**os.environ, **environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)

    return run


@pytest.fixture
def cluster(head, process):
    """Runs ``oneiros`` as a user who knows the cluster's address and token."""

    def run(*words):
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(head.token)}
        return process(*words, RAY_API_SERVER_ADDRESS=head.address, **secret)

    return run

import json

import numpy as np
import pytest
import yaml
from oneiros.platform.rollout import EvaluationResult

TINY = [
    *("--engine", "local", "--size", "1m", "--set", "batch_size=2", "--set", "batch_length=8"),
    *("--set", "learning_starts=64", "--set", "train_ratio=0.5", "--set", "num_envs_per_runner=2"),
    *("--set", "evaluation.episodes=2", "--set", "tracking.every_seconds=0.01", "--set", "tracking.mlflow=false"),
]
"""A real training that takes a second or two."""

TINY_FILE = """
preset: two_cores
hyper: {size: 1m, deter: 32, hidden: 16, units: 16, groups: 4, classes: 4, depth: 2, batch_size: 2, batch_length: 8,
  imagination_length: 3, compile: "off"}
learning_starts: 64
train_ratio: 0.5
num_envs_per_runner: 2
tracking: {mlflow: false, every_seconds: 0.01}
evaluation: {episodes: 2}
"""
"""A real training that learns from the first hundred steps on, as fast as it can."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write under the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def tiny(tmp_path):
    """Writes ``tiny.yaml``, and anew with other settings when called with some."""

    def write(name="tiny.yaml", **settings):
        (tmp_path / name).write_text(yaml.safe_dump(yaml.safe_load(TINY_FILE) | settings))

    write()
    return write


class FakeEngine:
    """Takes 10 env steps a step and remembers what it was asked for."""

    def __init__(self, returns=lambda steps: float(steps)):
        self.env_steps = 0
        self.calls = []
        self.returns = returns
        self.on_step = lambda engine: None
        self.save_error = None
        self.hurried = False

    def step(self):
        self.env_steps += 10
        self.on_step(self)
        return {"return": self.returns(self.env_steps), "episodes": self.env_steps // 5, "updates_per_s": 2.0}

    def hurry(self):
        self.hurried = True

    def save(self, path):
        if self.save_error is not None:
            raise self.save_error
        path.mkdir(parents=True)
        (path / "manifest.json").write_text(json.dumps(manifest(self.env_steps)))
        self.calls.append(("save", self.env_steps))

    def restore(self, path):
        self.env_steps = json.loads((path / "manifest.json").read_text())["counters"]["env_steps"]

    def evaluate(self, episodes, seed):
        self.calls.append(("evaluate", self.env_steps))
        scores = tuple(self.returns(self.env_steps) for _ in range(episodes))
        return EvaluationResult(scores, (7,) * episodes, env_steps=self.env_steps)

    def videos(self):
        self.calls.append(("videos", self.env_steps))
        return {"openloop/image": np.zeros((4, 16, 48, 3), np.uint8)}

    def close(self):
        self.calls.append(("close", self.env_steps))


def manifest(env_steps):
    return {
        "format": 1,
        "oneiros": "0.1.0",
        "algorithm": "dreamerv3",
        "created": 0.0,
        "counters": {"env_steps": env_steps, "updates": 0},
        "observation_space": {},
        "action_space": {},
        "hyperparameters": {},
        "config": {},
        "files": {},
    }


@pytest.fixture
def fake_engine(monkeypatch):
    engine = FakeEngine()
    monkeypatch.setattr("oneiros.platform.training.engine.open_engine", lambda config: engine)
    return engine

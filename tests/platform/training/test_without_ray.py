"""A bare machine, say with a GPU lent for minutes: it trains, resumes and evaluates without Ray and MLflow."""

import json
import subprocess
import sys

from tiny_run import HYPER

BLOCKED = ("ray", "mlflow", "imageio", "imageio_ffmpeg", "requests", "pyarrow")
COMMANDS = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
from oneiros.platform.cli import main
for words in {commands!r}:
    code = main.run(words)
    if code:
        sys.exit(f"{{words}}: {{code}}")
"""


def test_training_resuming_and_evaluating(tmp_path):
    run = str(tmp_path / "run")
    settings = [f"hyper.{key}={value}" for key, value in HYPER.items()] + ["train_ratio=4", "learning_starts=40"]
    train = ["train", "CartPole-v1", "--engine", "local", "--env-steps", "120", "--seed", "0", "--run-dir", run]
    evaluate = ["evaluate", run, "--episodes", "2", "--json", str(tmp_path / "evaluation.json")]
    commands = [
        [*train, *(word for setting in settings for word in ("--set", setting))],
        ["resume", run, "--env-steps", "200"],
        evaluate,
    ]
    code = COMMANDS.format(blocked=BLOCKED, commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "evaluation.json").read_text())["episodes"] == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("env_steps", 0) for row in rows) >= 200 and max(row.get("updates", 0) for row in rows) > 5

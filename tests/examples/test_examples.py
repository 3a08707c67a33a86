import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_training_without_ray_takes_thirty_lines_and_no_ray():
    script = HERE / "train_without_ray.py"
    done = subprocess.run(
        [sys.executable, script, "CartPole-v1", "768"], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    *training, evaluation = done.stdout.splitlines()
    assert "'env_steps': 7" in training[-1] and "loss/total" in training[-1]
    assert "'episodes': 4" in evaluation
    lines = [line for line in script.read_text().splitlines() if line]
    assert len(lines) <= 36

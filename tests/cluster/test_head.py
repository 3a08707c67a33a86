"""Ray's head is killed, and a new one takes over from what Redis holds."""

import shutil

import pytest
from head_failure import trial

pytestmark = [
    pytest.mark.netns,
    pytest.mark.ray,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]


def test_training_goes_on_without_a_head_and_with_a_new_one(tmp_path):
    result = trial(tmp_path)
    # Nobody but the head was restarted, and the new one knew of whom it had to start again when one was killed.
    assert result["runners_kept"] and result["exit_code"] == 0
    steps = [event["env_steps"] for event in result["events"]]
    assert steps == sorted(steps) and result["saved"]["env_steps"] >= steps[-1] > steps[0] + 1_000
    assert result["events"][-1]["faults/env_runner_restarts"] >= 1

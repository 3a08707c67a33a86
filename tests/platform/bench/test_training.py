"""``oneiros bench train``: end to end, from an environment's steps to updates."""

import pytest

SMALL = [
    *("--seconds", 0.05, "--envs", 2, "--train-ratio", 4),
    *("--set", "hyper.batch_size=2", "--set", "hyper.batch_length=8", "--set", "hyper.imagination_length=2"),
    *("--set", "hyper.deter=32", "--set", "hyper.hidden=16", "--set", "hyper.classes=4", "--set", "hyper.units=16"),
    *("--set", "learning_starts=64"),
]


def test_rates_are_those_of_the_train_ratio(bench):
    code, result, out, _ = bench("train", *SMALL)
    assert code == 0
    assert result["updates"] > 0
    assert result["updates_per_s"] / result["env_steps_per_s"] == pytest.approx(4 / (2 * 8), rel=0.2)
    assert result["actual_train_ratio"] == pytest.approx(4, rel=0.1)
    assert (result["engine"], result["runners"], result["envs"], result["size"]) == ("local", 0, 2, "1m")
    assert "env steps" in out


def test_a_slow_environment_bounds_the_steps(bench):
    _, result, _, _ = bench("train", *SMALL, "--env-ms", 2)
    assert result["env_steps_per_s"] < 1 / 0.002

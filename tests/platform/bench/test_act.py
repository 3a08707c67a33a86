"""``oneiros bench act``, and the environment that costs nothing."""

import time

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.platform.bench.act import NullPolicy
from oneiros.platform.bench.kinds import KINDS
from oneiros.platform.bench.null_env import NULL_ENV, NullEnv
from oneiros.platform.cli.env_check import check_environment
from oneiros.platform.rollout import Rollout


@pytest.fixture
def act(bench, tiny):
    return lambda *words: bench("act", "--envs", 2, "--steps", 20, *tiny[2:], *words)


@pytest.mark.parametrize("obs", ["state", "image"])
def test_inference_is_told_apart(act, obs):
    code, result, out, _ = act("--obs", obs)
    assert code == 0
    assert result["with_inference"]["median_s"] > result["without_inference"]["median_s"] > 0
    assert result["vector_step_s"] == pytest.approx(2 * result["median_s"])
    assert result["median_s"] == result["with_inference"]["median_s"]
    assert (result["envs"], result["steps"], result["threads"], result["obs"]) == (2, 20, 1, obs)
    assert "without inference" in out


@pytest.mark.parametrize("obs", KINDS)
def test_the_null_policy_fills_rows_as_a_real_one_does(obs):
    """Else the loop without inference would be cheaper than it is."""
    kind = KINDS[obs]
    field = type("Field", (), {"shape": (3,), "dtype": np.dtype(np.float16)})()
    rollout = Rollout(registry.make_vector(NULL_ENV, 2, kind=obs), NullPolicy(obs, 2, {"deter": field}))
    chunk = rollout.collect(5)
    assert chunk.env_steps == 10
    assert chunk.rows["latent/deter"].shape == (2, 5, 3)
    assert chunk.rows["obs"].shape == (2, 5, *kind.observation_space.shape)
    assert chunk.rows["action"].shape == (2, 5, *kind.action_space.shape)
    assert not rollout.metrics().keys() & {"faults/raised", "faults/reward"}


@pytest.mark.parametrize("obs", KINDS)
def test_the_null_environment_keeps_the_contract(obs):
    report = check_environment(NULL_ENV, lambda: registry.make(NULL_ENV, kind=obs, length=20), seconds=0.1)
    assert [finding.text for finding in report.findings if finding.breaks] == []
    assert report.longest_episode == 20


def test_a_step_takes_as_long_as_it_is_told_to():
    for waits in (False, True):
        env = NullEnv(step_ms=20, waits=waits)
        env.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        env.step(None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert wall >= 0.02
        if waits:
            assert cpu < 0.01

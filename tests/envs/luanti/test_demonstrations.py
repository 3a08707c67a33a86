"""What the scripted player records is what an agent would have seen and done, and a replay takes it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from oneiros.algorithms.contract import Field
from oneiros.envs import registry
from oneiros.envs.spaces import flatten_observation_space
from oneiros.platform.data import fill, open_data
from oneiros.platform.data.npz_folder import write_folder
from oneiros.platform.replay import Replay

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from luanti_demonstrations import play

pytestmark = pytest.mark.usefixtures("engine")
WORLD = 7


def test_a_demonstration_repeats_itself_without_the_oracle_and_fits_a_replay(tmp_path: Path) -> None:
    env = registry.make("luanti/log", oracle=True, spare=False, time_limit=500)
    try:
        recorded, reached = play(env, WORLD, "log")
        spaces = env.observation_space, env.action_space
    finally:
        env.close()
    assert reached and recorded.terminated
    assert recorded.rewards.tolist() == [0.0] * (recorded.steps - 1) + [1.0]

    env = registry.make("luanti/log", spare=False, time_limit=500)
    try:
        seen = [env.reset(options={"world": WORLD})[0]]
        for t, action in enumerate(recorded.actions):
            observation, reward, terminated, _, _ = env.step(action)
            seen.append(observation)
            assert (reward, terminated) == (recorded.rewards[t], t == recorded.steps - 1)
    finally:
        env.close()
    for key in ("inventory", "inventory_max", "equipped", "health"):
        np.testing.assert_array_equal([one[key] for one in seen], recorded.observations[key], err_msg=key)

    write_folder(tmp_path, [recorded], spaces, "luanti/log")
    fields = {key: Field(space.shape, space.dtype) for key, space in flatten_observation_space(spaces[0]).items()}  # type: ignore[arg-type]
    fields |= {"action": Field((), np.dtype(np.int32)), "reward": Field((), np.dtype(np.float32))}
    fields |= {flag: Field((), np.dtype(bool)) for flag in ("is_first", "is_last", "is_terminal")}
    replay = Replay(fields, capacity=1000, length=8)
    assert fill(replay, open_data(tmp_path)) == (1, recorded.steps)
    assert len(replay) == recorded.steps + 1

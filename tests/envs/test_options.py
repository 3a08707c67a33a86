"""Options of any environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption
from oneiros.envs.options import apply, convert_image
from scripted import Scripted


class Pictures(gymnasium.Env[Any, Any]):
    """An image whose left half is red and whose right half is white, and a number beside it."""

    observation_space = spaces.Dict({"image": spaces.Box(0, 255, (40, 60, 3), np.uint8), "n": spaces.Discrete(2)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        image = np.full((40, 60, 3), 255, np.uint8)
        image[:, :30, 1:] = 0
        return {"image": image, "n": 1}, {}


def run(env: Any, steps: int) -> list[Any]:
    env.reset()
    action = env.action_space.sample() * 0
    return [env.step(action) for _ in range(steps)]


def test_action_repeat_sums_rewards_and_stops_at_the_end() -> None:
    steps = run(apply(Scripted(lengths=(5,)), "x", {"action_repeat": 2}), 3)
    assert [float(step[1]) for step in steps] == [1 + 2, 3 + 4, 5]
    assert [step[2] for step in steps] == [False, False, True]
    assert [int(step[0][2]) for step in steps] == [2, 4, 5]


def test_time_limit_counts_policy_steps_and_truncates() -> None:
    steps = run(apply(Scripted(lengths=(9,)), "x", {"action_repeat": 2, "time_limit": 3}), 3)
    assert [step[2:4] for step in steps] == [(False, False), (False, False), (False, True)]


def test_time_limit_replaces_the_one_a_gymnasium_id_comes_with() -> None:
    assert [step[3] for step in run(registry.make("Pendulum-v1"), 200)].index(True) == 199
    longer = run(registry.make("Pendulum-v1", time_limit=250), 250)
    assert [step[3] for step in longer].index(True) == 249
    repeated = run(registry.make("Pendulum-v1", time_limit=250, action_repeat=2), 250)
    assert [step[3] for step in repeated].index(True) == 249
    assert [step[3] for step in run(registry.make("Pendulum-v1", action_repeat=2), 100)].index(True) == 99


def test_frame_size_and_grayscale() -> None:
    env = apply(Pictures(), "x", {"size": [20, 32], "grayscale": True})
    observation, _ = env.reset()
    assert env.observation_space["image"].shape == observation["image"].shape == (20, 32, 1)  # type: ignore[index]
    assert observation["image"][:, :15].max() == 76 and observation["image"][:, 17:].min() == 255
    assert env.observation_space.contains(observation)
    env = apply(Pictures(), "x", {"size": 80})
    assert env.reset()[0]["image"].shape == (80, 80, 3)


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 2), dtype=np.uint8)
    expected = image.reshape(16, 4, 16, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(convert_image(image, (16, 16)), expected, atol=1.01)  # rounded once in each direction
    assert convert_image(image, (64, 64)) is image


def test_the_first_reset_is_seeded_once() -> None:
    def first_two(**options: Any) -> tuple[Any, Any]:
        env = registry.make("CartPole-v1", **options)
        return env.reset()[0], env.reset()[0]

    one, two = first_two(seed=4), first_two(seed=4)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one[0], one[1])
    env = registry.make("CartPole-v1", seed=4)
    np.testing.assert_array_equal(env.reset(seed=11)[0], registry.make("CartPole-v1", seed=11).reset()[0])


def test_a_mask_from_the_info_joins_the_observation() -> None:
    env = registry.make("Taxi-v3", info_mask=True)
    observation, info = env.reset(seed=0)
    assert set(observation) == {"obs", "action_mask"} and env.observation_space.contains(observation)
    np.testing.assert_array_equal(observation["action_mask"], info["action_mask"])
    assert 0 < observation["action_mask"].sum() < 6
    with pytest.raises(InvalidOption, match="no Discrete action space"):
        registry.make("Pendulum-v1", info_mask=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"time_limit": 0}, "time_limit is a whole number from 1 on, not 0"),
        ({"time_limit": "long"}, "time_limit is a whole number"),
        ({"action_repeat": 1.5}, "action_repeat is a whole number"),
        ({"action_repeat": True}, "action_repeat is a whole number"),
        ({"size": "big"}, r"size is a side in pixels, or \[height, width\], not 'big'"),
        ({"size": [1, 2, 3]}, "size is a side in pixels"),
        ({"size": 0}, "size is a side in pixels"),
        ({"seed": -1}, "seed is a number from 0 on"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        apply(Pictures(), "x", options)


def test_size_needs_an_image() -> None:
    with pytest.raises(InvalidOption, match="CartPole-v1 has no image observation"):
        registry.make("CartPole-v1", size=64)

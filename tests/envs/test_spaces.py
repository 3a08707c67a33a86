"""Flat spaces and back: nothing is lost, everything has a name, what cannot be served is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from hypothesis import given
from hypothesis import strategies as st
from oneiros.envs.contract import UnsupportedSpace
from oneiros.envs.spaces import (
    ActionCodec,
    ObservationCodec,
    flatten_action_space,
    flatten_observation_space,
    is_image,
)

BATCH = 3

boxes = st.builds(
    lambda shape, dtype, low, width: spaces.Box(low, low + width, tuple(shape), dtype),
    st.lists(st.integers(1, 3), max_size=3),
    st.sampled_from([np.float32, np.float64, np.int32]),
    st.integers(-5, 5),
    st.integers(0, 9),
)
discrete = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.builds(
        lambda pairs: spaces.MultiDiscrete([n for n, _ in pairs], start=[s for _, s in pairs]),
        st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 2)), min_size=1, max_size=3),
    ),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
)
leaves = st.one_of(boxes, discrete)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(lambda subs: spaces.Tuple(subs)),
    ),
    max_leaves=5,
)


def assert_same(left: Any, right: Any, **tolerance: float) -> None:
    assert type(left) is type(right) or isinstance(left, dict)
    if isinstance(left, dict):
        assert set(left) == set(right)
        for key in left:
            assert_same(left[key], right[key], **tolerance)
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other, **tolerance)
    else:
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, **tolerance)


def contains(space: spaces.Space[Any], value: Any) -> bool:
    """As the space itself says, without its warnings about numbers that are NumPy's own."""
    if isinstance(space, spaces.Dict):
        return all(contains(sub, value[key]) for key, sub in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(contains(sub, entry) for sub, entry in zip(space.spaces, value, strict=True))
    return space.contains(np.asarray(value))


@given(nested)
def test_observations_round_trip(space: spaces.Space[Any]) -> None:
    batch_of = batch_space(space, BATCH)
    batch_of.seed(0)
    batch, codec = batch_of.sample(), ObservationCodec(space)
    flat = codec.flatten(batch)
    assert flat.keys() == codec.space.keys() == flatten_observation_space(space).keys()
    for key, values in flat.items():
        for row in values:
            assert codec.space[key].contains(np.asarray(row)), (key, codec.space[key], row)
    assert_same(codec.unflatten(flat), batch, rtol=1e-6)


@given(nested)
def test_actions_round_trip(space: spaces.Space[Any]) -> None:
    batch_of = batch_space(space, BATCH)
    batch_of.seed(0)
    batch, codec = batch_of.sample(), ActionCodec(space)
    flat = codec.flatten(batch)
    assert flat.keys() == codec.space.keys() == flatten_action_space(space).keys()
    executed, stored = codec.unflatten(flat)
    assert_same(executed, batch, rtol=1e-5, atol=1e-5)
    for key in stored:
        np.testing.assert_allclose(stored[key], flat[key], atol=1e-6)


@given(nested, st.integers(0, 100))
def test_whatever_an_agent_chooses_is_legal_and_stored_as_executed(space: spaces.Space[Any], seed: int) -> None:
    codec, rng = ActionCodec(space), np.random.default_rng(seed)
    chosen = codec.sample(rng, BATCH)
    for key, values in chosen.items():
        if values.dtype == np.float32:
            chosen[key] = (values * 3).astype(np.float32)
    executed, stored = codec.unflatten(chosen)
    for action in iterate(batch_space(space, BATCH), executed):
        assert contains(space, action), action
    zeros = codec.zeros(BATCH)
    for key, values in stored.items():
        assert values.shape == zeros[key].shape and values.dtype == zeros[key].dtype
        assert (np.abs(values) <= 1).all() or values.dtype == np.int64
    again, same = codec.unflatten(stored)
    assert_same(again, executed, rtol=1e-5, atol=1e-5)
    for key in stored:
        np.testing.assert_allclose(same[key], stored[key], atol=1e-6)


def test_names_follow_the_structure() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Dict({"left": spaces.Box(0, 255, (64, 64, 3), np.uint8)}),
            "pair": spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)]),
            "reward": spaces.Box(-1, 1, (1,)),
            "latent": spaces.Dict({"z": spaces.Discrete(2)}),
            "action_mask": spaces.MultiBinary(4),
        }
    )
    assert set(flatten_observation_space(space)) == {
        *("action_mask", "camera/left", "obs/latent/z", "obs/reward", "pair/0", "pair/1")
    }
    assert set(flatten_observation_space(spaces.Discrete(3))) == {"obs"}
    assert set(flatten_action_space(space["pair"])) == {"action/0", "action/1"}
    assert set(flatten_action_space(spaces.Discrete(3))) == {"action"}


def test_images_keep_their_bytes_and_grey_ones_get_a_channel() -> None:
    grey = spaces.Box(0, 255, (84, 84), np.uint8)
    flat = flatten_observation_space(grey)["obs"]
    assert flat.shape == (84, 84, 1) and flat.dtype == np.uint8 and is_image(flat)
    assert ObservationCodec(grey).flatten(np.zeros((2, 84, 84), np.uint8))["obs"].shape == (2, 84, 84, 1)
    assert not is_image(flatten_observation_space(spaces.Box(0, 255, (128,), np.uint8))["obs"])
    assert not is_image(flatten_observation_space(spaces.Box(0, 1, (64, 64, 3), np.float32))["obs"])


def test_flattening_does_not_copy_what_needs_no_conversion() -> None:
    batch = {"x": np.zeros((2, 3), np.float32), "y": np.zeros((2, 3), np.float64)}
    space = spaces.Dict({"x": spaces.Box(-1, 1, (3,), np.float32), "y": spaces.Box(-1, 1, (3,), np.float64)})
    flat = ObservationCodec(space).flatten(batch)
    assert flat["x"] is batch["x"]
    assert flat["y"].dtype == np.float32


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Text(5), "'obs' has the space Text: supported are Box, Discrete"),
        (spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}), "'a' has the space Sequence"),
        (spaces.Dict({}), "space is empty"),
        (
            spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})}),
            "two observation entries would both be called 'a/b'",
        ),
    ],
)
def test_what_cannot_be_served_is_named(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(UnsupportedSpace, match=message):
        flatten_observation_space(space)


def test_unbounded_and_empty_ranges() -> None:
    box = spaces.Box(np.array([-np.inf, 2.0, 0.0]), np.array([np.inf, 2.0, 4.0]), dtype=np.float64)
    executed, stored = ActionCodec(box).unflatten({"action": np.array([[0.5, 0.5, 0.5]], np.float32)})
    np.testing.assert_allclose(executed, [[0.5, 2.0, 3.0]])
    np.testing.assert_allclose(stored["action"], [[0.5, 0.5, 0.5]])


def test_samples_cover_the_space_evenly() -> None:
    space = spaces.Dict({"n": spaces.Discrete(3), "m": spaces.MultiDiscrete([2, 4]), "x": spaces.Box(-2, 2, (1,))})
    sample = ActionCodec(space).sample(np.random.default_rng(0), 6000)
    np.testing.assert_allclose(np.bincount(sample["action/n"]), [2000] * 3, atol=150)
    np.testing.assert_allclose(np.bincount(sample["action/m"][:, 1]), [1500] * 4, atol=150)
    assert abs(sample["action/x"].mean()) < 0.03 and sample["action/x"].std() == pytest.approx(3**-0.5, abs=0.02)


def test_masked_samples_are_legal_and_even() -> None:
    mask = np.tile(np.array([[0, 1, 1, 0, 1]], np.int8), (3000, 1))
    mask[0] = 0  # nothing is legal: anything goes, rather than an index that was never meant
    sample = ActionCodec(spaces.Discrete(5)).sample(np.random.default_rng(0), 3000, {"action": mask})["action"]
    np.testing.assert_allclose(np.bincount(sample[1:], minlength=5), [0, 1000, 1000, 0, 1000], atol=120)

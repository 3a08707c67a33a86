"""The multi-agent suites do what their descriptions say; those whose packages are not installed are skipped."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption
from oneiros.envs.hanabi_suite import exact_posterior
from oneiros.platform.cli.env_check import sample_action

pytestmark = [pytest.mark.filterwarnings("ignore")]


def make(env_id: str, **options: Any) -> Any:
    """The environment, or a skip with the reason."""
    status = {suite.name: suite for suite in registry.suites()}[env_id.split("/")[0]]
    if status.missing:
        pytest.skip(f"lacks {', '.join(status.missing)}: {status.install}")
    return registry.make(env_id, **options)


@pytest.mark.parametrize(
    ("copies", "allowed"),
    [
        ([2, 1, 1], [[1, 1, 0], [1, 1, 1]]),
        ([1, 1], [[1, 0], [1, 1]]),
        ([3, 0, 2, 1], [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]]),
    ],
)
def test_the_exact_posterior_is_that_of_dealing_every_hand(copies: Any, allowed: Any) -> None:
    copies, allowed = np.array(copies), np.array(allowed, np.float64)
    deck = [kind for kind, count in enumerate(copies) for _ in range(count)]
    counts = np.zeros(allowed.shape)
    for hand in itertools.permutations(deck, len(allowed)):
        if all(allowed[k, kind] for k, kind in enumerate(hand)):
            for k, kind in enumerate(hand):
                counts[k, kind] += 1
    np.testing.assert_allclose(exact_posterior(copies, allowed), counts / counts.sum(1, keepdims=True))


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("mpe/simple_speaker_listener", {}),
        ("mpe/simple_reference", {"continuous_actions": True}),
        ("hanabi/small", {"oracle": True}),
        ("lbforaging/2s-8x8-2p-2f-coop", {"time_limit": 20}),
        ("rware/tiny-2ag", {"time_limit": 20}),
        ("butterfly/cooperative_pong", {"size": 32, "time_limit": 5}),
        ("butterfly/knights_archers_zombies", {"time_limit": 5}),
        ("minds/boxes", {}),
    ],
)
def test_an_episode_stays_within_its_spaces(env_id: str, options: dict[str, Any]) -> None:
    env = make(env_id, **options)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(200):
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = env.step(sample_action(env.action_space, observation))
        assert np.isfinite(reward)
        if terminated or truncated:
            break
    assert env.observation_space.contains(observation)
    assert terminated or truncated
    env.close()


def test_speaker_listener_declares_its_goal_and_its_aspects() -> None:
    env = make("mpe/simple_speaker_listener")
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        goal = int(observation["training"]["listener_0"]["belief"]["goal"])
        assert np.argmax(observation["agent"]["speaker_0"]["obs"]) == goal
    deaf = make("mpe/simple_speaker_listener", aspects={"listener_0": ["velocity", "landmarks"]})
    assert set(deaf.reset(seed=0)[0]["agent"]["listener_0"]) == {"velocity", "landmarks", "alive"}
    with pytest.raises(InvalidOption, match="listener_0 has no aspect 'goal': there are heard, landmarks, velocity"):
        make("mpe/simple_speaker_listener", aspects={"listener_0": ["goal"]})


def test_hanabi_knows_the_hands_and_what_could_be_known_of_them() -> None:
    env = make("hanabi/small", oracle=True)
    env.action_space.seed(0)
    nats, uniform = [], []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            for name, own in observation["training"].items():
                hand, posterior = own["belief"]["hand"], own["oracle"]["hand"]
                np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-5)
                assert (posterior[np.arange(2), hand] > 0).all(), "what is so must be thought possible"
                held = (hand < 10) & (observation["agent"][name]["alive"] == 1)
                (partner,) = observation["agent"].keys() - {name}
                shown = observation["agent"][partner]["observation"][:20].reshape(2, 10)
                dealt = hand < 10
                assert (shown.argmax(-1)[dealt] == hand[dealt]).all() and (shown.sum(-1) == dealt).all(), "at once"
                nats += (-np.log(posterior[np.arange(2), hand]))[held].tolist()
                uniform += [np.log(10)] * int(held.sum())
            observation, _, terminated, truncated, _ = env.step(sample_action(env.action_space, observation))
            over = terminated or truncated
    assert np.mean(nats) < 0.9 * np.mean(uniform)


def test_a_turn_of_hanabi_builds_no_spaces_anew() -> None:
    env = make("hanabi/small")
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    game = env.players.env.hanabi_env
    before = game.observation_space("player_0"), game.action_space("player_0")
    env.step(sample_action(env.action_space, observation))
    env.reset(seed=1)
    assert game.observation_space("player_0") is before[0] and game.action_space("player_0") is before[1]


def test_foragers_would_like_to_know_what_is_out_of_their_sight() -> None:
    env = make("lbforaging/2s-8x8-2p-2f-coop")
    env.action_space.seed(0)
    hidden = gone = 0
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            one, other = (observation["training"][f"agent_{i}"]["belief"] for i in range(2))
            away = one["partners"] - 7
            assert (away == 7 - other["partners"]).all() and away.any()
            # The last number is the level of a partner that is seen; whoever stands at a wall sees farther from it.
            assert observation["agent"]["agent_0"]["obs"][-1] > 0 or np.abs(away).max() > 2
            food = one["food"].reshape(2, 2)
            shown = sum(observation["agent"]["agent_0"]["obs"][[2, 5]] > 0)
            assert shown == (np.abs(food - 7).max(-1) <= 2).sum()
            hidden += int(2 - shown)
            gone += int((food == 15).all(-1).sum())
            observation, _, terminated, truncated, _ = env.step(sample_action(env.action_space, observation))
            over = terminated or truncated
        assert observation["training"]["agent_0"]["belief"]["food"].shape == (4,)
    assert hidden > gone


def test_every_seed_deals_hanabi_and_the_full_game_has_an_exact_posterior_too() -> None:
    env = make("hanabi/full", oracle=True)
    one, _ = env.reset(seed=2**32 - 1)
    other, _ = env.reset(seed=2**32 - 1)
    for name, known in one["training"].items():
        assert np.array_equal(known["belief"]["hand"], other["training"][name]["belief"]["hand"])
        posterior = known["oracle"]["hand"]
        assert posterior.shape == (5, 26) and np.ptp(posterior[:, :25], 0).max() < 1e-6, "no card was told of yet"
        np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-5)


def test_what_sally_can_know_fades_while_she_is_out_and_is_certain_when_she_is_here() -> None:
    env = make("minds/boxes", boxes=3, length=20)
    likely, sharpest = [], []
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        over, stayed = False, 1.0
        while not over:
            marble = int(observation["training"]["sally"]["belief"]["marble"])
            known = observation["training"]["sally"]["oracle"]["marble"][0]
            assert observation["training"]["anne"]["oracle"]["marble"][0, marble] == 1
            if observation["agent"]["sally"]["here"]:
                stayed = 1.0
            else:
                stayed = 0.75 * stayed + 0.125 * (1 - stayed)
                likely.append(known[marble])
                sharpest.append((known**2).sum())
            assert known.max() == pytest.approx(stayed) and known.sum() == pytest.approx(1)
            observation, _, over, _, _ = env.step({"anne": 0, "sally": 0})
    # What exact inference gives the truth is on average what it gives itself; over 500 steps, within 0.04.
    assert np.mean(likely) == pytest.approx(np.mean(sharpest), abs=0.04)

"""Actions: how they lie in one flat vector, how they are drawn, and how likely they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import UnsupportedSpace
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.actor import ActionLayout, Actor, Noise
from scipy import stats
from torch import Tensor
from torch.distributions import Categorical, Normal

JUST_UNDER_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
MIXED = {
    "action/turn": spaces.Box(-1, 1, (2, 2), np.float32),
    "action/key": spaces.Discrete(3),
    "action/pair": spaces.MultiDiscrete([2, 4]),
    "action/speed": spaces.Box(-1, 1, (), np.float32),
}


def make_actor(space: dict[str, spaces.Space], unimix: float = 0.01, seed: int = 0) -> Actor:
    torch.manual_seed(seed)
    return Actor(6, ActionLayout(space), 1, 16, unimix, scale=3.0)


def rows(n: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    return {
        "action/turn": torch.tensor(rng.uniform(-1, 1, (n, 2, 2)), dtype=torch.float32),
        "action/key": torch.tensor(rng.integers(3, size=n)),
        "action/pair": torch.tensor(rng.integers([2, 4], size=(n, 2))),
        "action/speed": torch.tensor(rng.uniform(-1, 1, n), dtype=torch.float32),
    }


# ---- layout ----------------------------------------------------------------------------------------------------------


def test_flat_actions_are_one_hots_then_values_and_come_back() -> None:
    layout, actions = ActionLayout(MIXED), rows(9)
    flat = layout.flatten(actions)
    assert flat.shape == (9, 3 + 2 + 4 + 4 + 1) and layout.width == 14
    assert torch.equal(flat[:, :3].argmax(-1), actions["action/key"])
    assert torch.equal(flat[:, :9].sum(-1), torch.full((9,), 3.0))
    assert torch.equal(flat[:, 9], actions["action/speed"])
    assert torch.equal(flat[:, 10:], actions["action/turn"].reshape(9, 4))
    back = layout.unflatten(flat)
    assert back.keys() == actions.keys()
    for key, value in back.items():
        assert value.dtype == (torch.int64 if key in ("action/key", "action/pair") else torch.float32)
        assert torch.equal(value, actions[key]), key


def test_the_order_of_the_keys_does_not_matter() -> None:
    reverse = ActionLayout(dict(reversed(MIXED.items())))
    assert torch.equal(reverse.flatten(rows(4)), ActionLayout(MIXED).flatten(rows(4)))


def test_actions_are_clipped_only_when_they_leave_the_model() -> None:
    actor = make_actor({"action": spaces.Box(-1, 1, (2,), np.float32)})
    params = torch.tensor([[50.0, -50.0, 50.0, 50.0]])  # means of 1 and -1, deviations of 1
    flat = actor.sample(params, Noise(torch.zeros(1, 0), torch.tensor([[2.0, -0.5]])))
    torch.testing.assert_close(flat, torch.tensor([[3.0, -1.5]]))
    torch.testing.assert_close(actor.layout.unflatten(flat)["action"], torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("space", [spaces.MultiBinary(4), spaces.Text(5), spaces.Sequence(spaces.Discrete(3))])
def test_an_action_space_that_cannot_be_served_is_named(space: spaces.Space) -> None:
    with pytest.raises(UnsupportedSpace, match=r"Action 'action/odd' .* Discrete, MultiDiscrete and Box"):
        ActionLayout({"action/odd": space})


# ---- distributions ---------------------------------------------------------------------------------------------------


def distributions(params: Tensor, unimix: float) -> tuple[list[Categorical], Normal]:
    discrete, mean, std = params.split([9, 5, 5], -1)
    parts = [
        Categorical(probs=(1 - unimix) * x.softmax(-1) + unimix / x.shape[-1]) for x in discrete.split([3, 2, 4], -1)
    ]
    return parts, Normal(torch.tanh(mean), 0.9 * torch.sigmoid(std + 2) + 0.1)


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.2])
def test_likelihood_and_entropy_are_sums_over_components(unimix: float) -> None:
    actor = make_actor(MIXED, unimix)
    params = actor(torch.randn(20, 6))
    flat = actor.sample(params.detach(), actor.noise((20,), torch.Generator().manual_seed(0)))
    discrete, normal = distributions(params, unimix)
    expected = normal.log_prob(flat[:, 9:]).sum(-1)
    for d, x in zip(discrete, flat[:, :9].split([3, 2, 4], -1), strict=True):
        expected = expected + d.log_prob(x.argmax(-1))
    torch.testing.assert_close(actor.log_prob(params, flat), expected, rtol=1e-4, atol=1e-4)
    entropy = normal.entropy().sum(-1) + sum(d.entropy() for d in discrete)
    torch.testing.assert_close(actor.entropy(params), entropy, rtol=1e-4, atol=1e-4)


def test_unimix_is_an_option_on_by_default(make_agent: Callable[..., DreamerV3]) -> None:
    for overrides, floor in (({}, 0.01 / 3), ({"actor_unimix": 0.0}, 0.0)):
        agent = make_agent(**overrides)
        certain = torch.tensor([[100.0, -100.0, -100.0]])
        one_hot = torch.tensor([[0.0, 1.0, 0.0]])
        prob = agent.actor.log_prob(certain, one_hot).exp().item()
        assert prob == pytest.approx(floor, rel=1e-4, abs=1e-15)


def test_samples_follow_the_policy() -> None:
    actor = make_actor(MIXED)
    n = 20_000
    params = actor(torch.randn(1, 6)).detach().expand(n, -1)
    flat = actor.sample(params, actor.noise((n,), torch.Generator().manual_seed(1)))
    discrete, normal = distributions(params[:1], 0.01)
    for d, x in zip(discrete, flat[:, :9].split([3, 2, 4], -1), strict=True):
        expected = d.probs[0].double()
        assert stats.chisquare(x.sum(0).numpy(), (expected / expected.sum() * n).numpy()).pvalue > 1e-3
    for i in range(5):
        values = (flat[:, 9 + i] - normal.mean[0, i]) / normal.stddev[0, i]
        assert stats.kstest(values.numpy(), "norm").pvalue > 1e-3
    # Components are drawn apart: no two of them are correlated.
    correlation = np.corrcoef(flat[:, [0, 3, 5, 9, 10, 13]].numpy().T) - np.eye(6)
    assert np.abs(correlation).max() < 0.04


@pytest.mark.parametrize("noise", [0.0, JUST_UNDER_ONE])
def test_edge_noise_still_gives_exactly_one_class(noise: float) -> None:
    actor = make_actor({"action": spaces.Discrete(97)})
    params = torch.randn(500, 97, generator=torch.Generator().manual_seed(2)) * 3
    flat = actor.sample(params, Noise(torch.full((500, 1), noise), torch.zeros(500, 0)))
    assert torch.equal(flat.sum(-1), torch.ones(500)) and set(flat.unique().tolist()) == {0.0, 1.0}


def test_the_mode_is_the_likeliest_action() -> None:
    actor = make_actor(MIXED)
    params = actor(torch.randn(30, 6)).detach()
    flat = actor.mode(params)
    discrete, normal = distributions(params, 0.01)
    torch.testing.assert_close(flat[:, 9:], normal.mean)
    for d, x in zip(discrete, flat[:, :9].split([3, 2, 4], -1), strict=True):
        assert torch.equal(x.argmax(-1), d.probs.argmax(-1))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))], ids=["discrete", "continuous"])
def test_no_gradient_through_imagination(space: spaces.Space, make_agent: Callable[..., DreamerV3]) -> None:
    agent = make_agent(action={"action": space})
    feat = torch.randn(4, agent.model.features, requires_grad=True)
    dream = agent.dream(feat)
    assert dream.returns is None
    parts = [dream.feat, dream.action, dream.reward, dream.cont, dream.slow_value, *dream.outputs]
    assert not any(part.requires_grad for part in parts)


def test_randomness_is_one_of_the_widest_policy_and_zero_of_the_narrowest() -> None:
    actor = make_actor(MIXED, unimix=0.0)
    widest, narrowest = torch.zeros(1, 19), torch.zeros(1, 19)
    narrowest[:, [0, 3, 5]] = 100.0
    widest[:, 14:], narrowest[:, 14:] = 100.0, -100.0
    torch.testing.assert_close(actor.randomness(actor.entropy(widest)), torch.ones(1))
    torch.testing.assert_close(actor.randomness(actor.entropy(narrowest)), torch.zeros(1))


# ---- masks -----------------------------------------------------------------------------------------------------------


def test_an_illegal_action_is_never_drawn_and_has_no_share_of_the_uniform() -> None:
    actor = make_actor({"action": spaces.Discrete(5)}, unimix=0.5)
    mask = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]])
    params = torch.tensor([[9.0, 0.0, 5.0, 1.0, 9.0]])
    noise = torch.cat(
        [torch.tensor([0.0, JUST_UNDER_ONE]), torch.rand(5000, generator=torch.Generator().manual_seed(3))]
    )
    n = len(noise)
    flat = actor.sample(params.expand(n, -1), Noise(noise[:, None], torch.zeros(n, 0)), mask.expand(n, -1))
    assert torch.equal(flat.sum(-1), torch.ones(n))
    assert not flat[:, [0, 2, 4]].any()
    legal = 0.5 * torch.tensor([0.0, 1.0]).softmax(-1) + 0.5 / 2
    assert flat[:, 1].mean().item() == pytest.approx(legal[0].item(), abs=0.02)
    chosen = torch.eye(5)[[1, 3]]
    log_prob = actor.log_prob(params.expand(2, -1), chosen, mask.expand(2, -1))
    torch.testing.assert_close(log_prob, legal.log())
    torch.testing.assert_close(actor.entropy(params, mask), Categorical(probs=legal).entropy()[None])
    assert actor.mode(params, mask).argmax().item() == 3


def test_a_single_legal_action_is_certain() -> None:
    actor = make_actor({"action": spaces.Discrete(4)})
    mask = torch.eye(4)
    params = torch.randn(4, 4, generator=torch.Generator().manual_seed(4)) * 20
    for noise in (0.0, 0.5, JUST_UNDER_ONE):
        assert torch.equal(actor.sample(params, Noise(torch.full((4, 1), noise), torch.zeros(4, 0)), mask), mask)
    torch.testing.assert_close(actor.log_prob(params, mask, mask), torch.zeros(4))
    torch.testing.assert_close(actor.entropy(params, mask), torch.zeros(4))


def test_acting_respects_the_mask_of_the_observation(make_agent: Callable[..., DreamerV3]) -> None:
    obs_space = {"obs": spaces.Box(-1, 1, (5,)), "action_mask": spaces.MultiBinary(4)}
    agent = make_agent(obs_space, {"action": spaces.Discrete(4)})
    generator = torch.Generator().manual_seed(5)
    state, is_first = agent.initial_state(64), torch.ones(64, dtype=torch.bool)
    for mode in ("train", "train", "train", "eval"):
        legal = torch.rand(64, 4, generator=generator) < 0.4
        legal[torch.arange(64), torch.randint(4, (64,), generator=generator)] = True
        obs = {"obs": torch.randn(64, 5, generator=generator), "action_mask": legal.to(torch.int8)}
        action, state, _ = agent.act(obs, is_first, state, mode)  # type: ignore[arg-type]
        assert legal[torch.arange(64), action["action"]].all()
        is_first = torch.zeros(64, dtype=torch.bool)


def test_imagination_acts_within_the_predicted_mask(make_agent: Callable[..., DreamerV3]) -> None:
    obs_space = {"obs": spaces.Box(-1, 1, (5,)), "action_mask": spaces.MultiBinary(4)}
    agent = make_agent(obs_space, {"action": spaces.Discrete(4)})
    agent.weights.flat.add_(torch.randn(agent.weights.flat.shape, generator=torch.Generator().manual_seed(6)))
    feats, actions, _ = agent.imagine(torch.randn(200, agent.model.features))
    for feat, action in zip(feats[:-1], actions, strict=True):
        mask = agent.model.predict_mask(feat)
        assert mask is not None and (mask.sum(-1) >= 1).all()
        assert 0 < mask.mean() < 1
        assert ((action * mask).sum(-1) == 1).all()

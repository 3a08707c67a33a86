"""Agents of separate weights: the same mathematics in one batch, and nobody learns from another's losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.belief import Belief, Hyperparameters

Rows = dict[str, torch.Tensor]
ANN, BOB = 0, 1
SPEAK = {"tokens": 2, "vocabulary": 4}


def tensors(agent: Belief) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters by name."""
    for module in ("model", "actor", "critic", "slow_critic"):
        yield from ((f"{module}/{k}", p) for k, p in getattr(agent, module).named_parameters())


@torch.no_grad()
def share(separate: Belief, shared: Belief) -> None:
    """Give every agent of ``separate`` the weights of ``shared``."""
    of = dict(tensors(shared))
    mine = dict(tensors(separate))
    assert mine.keys() == of.keys()
    for name, parameter in mine.items():
        parameter.copy_(of[name].expand_as(parameter))


def losses(agent: Belief, rows: Rows) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    agent.generator.manual_seed(3)
    total, _, metrics = agent.loss(agent.prepare(rows))
    return total, metrics


@pytest.fixture
def sighted(make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]) -> Callable[..., tuple[Belief, Rows]]:
    """A tiny agent two of whose minds see pictures, and rows for it."""

    def make(**overrides: Any) -> tuple[Belief, Rows]:
        blind = make_agent(**overrides)
        rows = make_batch(blind)
        eye = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        views = {"agent/ann/view": eye, "agent/bob/view": eye}
        agent = make_agent(blind.obs_space | views, **overrides)
        for key in views:
            shape = (*rows["is_first"].shape, *eye.shape)
            rows[key] = torch.from_numpy(np.random.default_rng(1).integers(0, 256, shape, np.uint8))
        return agent, rows

    return make


@pytest.mark.parametrize("overrides", [{}, {"channel": SPEAK, "zero_order_gradient": True}, {"variant": "independent"}])
def test_with_the_weights_of_a_shared_mind_it_does_what_that_does(
    sighted: Callable[..., tuple[Belief, Rows]], overrides: dict[str, Any]
) -> None:
    shared, rows = sighted(**overrides)
    separate, _ = sighted(weights="separate", **overrides)
    share(separate, shared)
    mine = dict(tensors(separate))
    for name, parameter in tensors(shared):
        assert mine[name].shape == (3, *parameter.shape), name
    (total, metrics), (other_total, other_metrics) = losses(shared, rows), losses(separate, rows)
    torch.testing.assert_close(other_total, total, rtol=1e-4, atol=1e-4)
    assert metrics.keys() == other_metrics.keys()
    for key, value in metrics.items():
        torch.testing.assert_close(other_metrics[key], value, rtol=1e-3, atol=1e-4, msg=key)
    if overrides.get("variant") == "independent":
        # Nothing crosses between independent agents, so what shared weights learn is the sum of what each would.
        total.backward()
        other_total.backward()
        for name, parameter in tensors(shared):
            if not name.startswith("slow_critic"):
                grad = mine[name].grad
                assert grad is not None
                torch.testing.assert_close(grad.sum(0), parameter.grad, rtol=2e-3, atol=2e-4, msg=name)
    obs = {k: v[:, 0] for k, v in rows.items() if k.startswith("agent/")}
    first = torch.ones(len(obs["agent/ann/alive"]), dtype=torch.bool)
    acted = [agent.act(obs, first, agent.initial_state(len(first)), "eval")[1] for agent in (shared, separate)]
    torch.testing.assert_close(acted[1]["deter"], acted[0]["deter"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overrides", [{}, {"first_order_gradient": True, "zero_order_gradient": True}])
def test_one_agents_losses_teach_no_other_anything(
    sighted: Callable[..., tuple[Belief, Rows]], overrides: dict[str, Any]
) -> None:
    def taught(**more: Any) -> dict[str, torch.Tensor]:
        agent, rows = sighted(weights="separate", free_nats=0.0, **overrides, **more)
        prepared = agent.prepare(rows)
        T, B, G = prepared["begins"].shape
        deter, stoch, logits, _ = agent.observe(prepared)
        feat = agent.model.feat(deter, stoch).view(T * B, G, -1)
        before = torch.cat([prepared["stoch"][None], stoch[:-1]]).view(T * B, G, -1)
        moved = prepared["prev_action"].view(T * B, G, -1)
        post = logits.view(T * B, G, -1)
        prior = agent.model.prior(deter.view(T * B, G, -1), before, moved, prepared["alive"])
        found = agent.model.losses(feat, post, prior, prepared)
        found |= agent.model.belief_losses(feat, post, prepared | {"intended": prepared["action"]})
        value, _ = agent.values(feat[None], agent.intents(feat)[None], prepared["alive"])
        found["value"] = value[0].square().sum(-1)
        torch.stack([loss[:, ANN].sum() for loss in found.values()]).sum().backward()
        grads = dict(tensors(agent))
        return {k: p.grad.flatten(1).abs().sum(1) for k, p in grads.items() if p.grad is not None}

    apart = taught()
    assert len(apart) > 60
    for name, sums in apart.items():
        assert float(sums[1:].sum()) == 0, name
    silent = {name for name, sums in apart.items() if sums[ANN] == 0}
    assert all(name.startswith(("actor", "model/speech")) for name in silent), f"the control: Ann learns ({silent})"
    if not overrides:
        heard = taught(channel=SPEAK)
        assert sum(float(s[1:].sum()) for n, s in heard.items() if n.startswith("model/speech")) > 0, "messages teach"


def test_each_learns_as_it_would_beside_any_others(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
) -> None:
    def learnt(strange: bool, weights: str) -> dict[str, torch.Tensor]:
        agent = make_agent(weights=weights, warmup=0, learning_rate=1e-2, variant="independent")
        rows = make_batch(agent)
        if strange:
            rows["agent/bob/obs"] = 3 * torch.ones_like(rows["agent/bob/obs"])
        # How large returns are is the one thing that all agents' advantages are measured by.
        agent.return_scale.rate = 1e-9
        for _ in range(2):
            agent.update(rows)
        return {name: p.detach().clone() for name, p in tensors(agent)}

    one, other = learnt(False, "separate"), learnt(True, "separate")
    for name in one:
        torch.testing.assert_close(one[name][ANN], other[name][ANN], rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.allclose(one[name][BOB], other[name][BOB], atol=1e-3) for name in one), "Bob does notice"
    one, other = learnt(False, "shared"), learnt(True, "shared")
    assert any(not torch.allclose(one[name], other[name], atol=1e-3) for name in one), "the control: shared minds"


def test_agents_begin_unlike_and_a_policy_takes_a_learners_weights(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    learner, policy = make_agent(weights="separate"), make_agent(weights="separate", role="policy", seed=9)
    weight = dict(tensors(learner))["model/rssm.post_logits.weight"]
    assert not torch.equal(weight[0], weight[1])
    policy.load_policy_state(learner.policy_state())
    first = torch.ones(4, dtype=torch.bool)
    acted = []
    for agent in (learner, policy):
        agent.act_generator.manual_seed(1)
        acted.append(agent.act(make_obs(), first, agent.initial_state(4), "eval"))
    assert all(torch.equal(acted[0][1][k], acted[1][1][k]) for k in acted[0][1])
    restored = make_agent(weights="separate", seed=5)
    restored.load_state_dict(learner.state_dict())
    assert all(torch.equal(p, dict(tensors(restored))[name]) for name, p in tensors(learner))
    with pytest.raises(ValueError, match="but"):
        make_agent().load_state_dict(learner.state_dict())


def test_one_mind_has_one_set_of_weights() -> None:
    with pytest.raises(ValueError, match="one centralised mind has one set of weights"):
        Hyperparameters(variant="centralised", weights="separate")

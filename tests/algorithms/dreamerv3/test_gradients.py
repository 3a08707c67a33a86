"""What each loss teaches, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor, nn

LOSSES = ("rec", "rew", "con", "dyn", "rep", "policy", "value", "repval")
MASKED = {"obs": spaces.Box(-1, 1, (5,)), "action_mask": spaces.MultiBinary(3)}
# The filtering path: what a gradient at the features reaches. The prior is no part of it.
FILTER = {"encoder", "gru", "posterior"}

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]
Roughen = Callable[..., None]


def parts(agent: DreamerV3) -> dict[str, list[nn.Module]]:
    rssm = agent.model.rssm
    return {
        "encoder": [agent.model.encoder],
        "gru": [rssm.gru],
        "posterior": [rssm.post_deter, rssm.post_tokens, rssm.post_norm, rssm.post_logits],
        "prior": [rssm.prior_net],
        "decoder": [agent.model.decoder],
        "reward": [agent.model.reward],
        "continue": [agent.model.cont],
        "actor": [agent.actor],
        "critic": [agent.critic],
        "slow critic": [agent.slow_critic],
    }


def taught(agent: DreamerV3) -> set[str]:
    """The parts with a gradient; each parameter of such a part must have one."""
    found = set()
    for name, modules in parts(agent).items():
        grads = [p.grad for module in modules for p in module.parameters()]
        moved = [g is not None and bool(g.any()) for g in grads]
        if any(moved):
            found.add(name)
            assert all(moved), f"only {sum(moved)} of the {len(moved)} parameters of the {name} have a gradient"
    return found


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))], ids=["discrete", "continuous"])
@pytest.mark.parametrize(
    ("loss", "overrides", "expected"),
    [
        ("policy", {}, {"actor"}),
        ("value", {}, {"critic"}),
        ("repval", {}, {"critic"} | FILTER),
        ("repval", {"replay_value_gradient": False}, {"critic"}),
        ("rew", {}, {"reward"} | FILTER),
        ("rew", {"reward_gradient": False}, {"reward"}),
        ("con", {}, {"continue"} | FILTER),
        ("rec", {}, {"decoder"} | FILTER),
        ("dyn", {}, {"prior"} | FILTER),  # the filter by way of the states that the prior reads
        ("rep", {}, FILTER),
    ],
)
def test_each_loss_teaches_what_it_should(
    action: spaces.Space[Any],
    loss: str,
    overrides: dict[str, Any],
    expected: set[str],
    make_agent: Make,
    make_rows: MakeRows,
    roughen: Roughen,
) -> None:
    scales = dict.fromkeys(LOSSES, 0.0) | {loss: 1.0}
    agent = make_agent(action={"action": action}, loss_scales=scales, free_nats=0.0, **overrides)
    roughen(agent)
    total, _, _ = agent.loss(agent.prepare(make_rows(agent, batch=4, length=12)))
    total.backward()
    assert taught(agent) == expected


def test_all_losses_together_teach_everything_but_the_slow_critic(
    make_agent: Make, make_rows: MakeRows, roughen: Roughen
) -> None:
    agent = make_agent(free_nats=0.0)
    roughen(agent)
    agent.loss(agent.prepare(make_rows(agent, batch=4, length=12)))[0].backward()
    assert taught(agent) == parts(agent).keys() - {"slow critic"}
    assert not any(p.requires_grad for p in agent.slow_critic.parameters())


def features(agent: DreamerV3, seed: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Random features and posterior logits that gradients can be asked of, and observations to go with them."""
    generator = torch.Generator().manual_seed(seed)
    feat = torch.randn(6, agent.model.features, generator=generator).requires_grad_()
    logits = torch.randn(6, agent.model.rssm.stoch, generator=generator).mul(3).requires_grad_()
    obs = {"obs": torch.randn(6, 5, generator=generator)}
    return feat, logits, obs


def test_dyn_moves_only_the_prior_and_rep_only_the_posterior(make_agent: Make, roughen: Roughen) -> None:
    agent = make_agent(free_nats=0.0)
    roughen(agent)
    feat, logits, obs = features(agent)
    prior = list(agent.model.rssm.prior_net.parameters())
    losses, _ = agent.model.losses(feat, logits, obs, torch.zeros(6), torch.zeros(6))
    torch.testing.assert_close(losses["dyn"], losses["rep"])
    for name, moved, still in (("dyn", prior, [logits]), ("rep", [logits], prior)):
        grads = torch.autograd.grad(losses[name].sum(), [*moved, *still], allow_unused=True, retain_graph=True)
        assert all(g is not None and g.any() for g in grads[: len(moved)]), name
        assert all(g is None or not g.any() for g in grads[len(moved) :]), name


def test_divergence_below_the_free_nats_teaches_nothing(make_agent: Make, roughen: Roughen) -> None:
    agent = make_agent(free_nats=1.0)
    roughen(agent)
    feat, logits, obs = features(agent)
    with torch.no_grad():
        near = agent.model.rssm.prior(feat[:, : agent.model.rssm.deter]) + 0.1
        near[0] = logits[0] * 3
    near.requires_grad_()
    losses, _ = agent.model.losses(feat, near, obs, torch.zeros(6), torch.zeros(6))
    # The threshold is on the sum over groups, of each state: row 0 is beyond it, the others sit on it.
    assert losses["rep"][0] > 1.5
    assert torch.equal(losses["rep"][1:], torch.ones(5)) and torch.equal(losses["dyn"][1:], torch.ones(5))
    (grad,) = torch.autograd.grad(losses["rep"].sum(), near)
    assert grad[0].any() and not grad[1:].any()


def test_the_policy_gradient_is_reinforce(make_agent: Make, roughen: Roughen) -> None:
    """A positive advantage makes the action taken likelier, a negative one less; weight and size scale the step."""
    agent = make_agent(entropy=0.0, actor_unimix=0.0)
    roughen(agent)
    generator = torch.Generator().manual_seed(0)
    feat = torch.randn(8, agent.model.features, generator=generator)
    action = torch.nn.functional.one_hot(torch.arange(8) % 3, 3).float()
    advantage, weight = torch.randn(8, generator=generator), torch.rand(8, generator=generator)
    params = agent.actor(feat).detach().requires_grad_()
    agent.actor.recall = lambda *_: params  # type: ignore[method-assign]
    log_prob, entropy = agent.acted(feat, [], action, None)
    loss = agent.actor_loss(advantage * log_prob, entropy, weight)
    (grad,) = torch.autograd.grad(loss.sum(), params)
    expected = -(weight * advantage)[:, None] * (action - params.detach().softmax(-1))
    torch.testing.assert_close(grad, expected)


def test_entropy_is_rewarded(make_agent: Make, roughen: Roughen) -> None:
    agent = make_agent(entropy=1.0)
    roughen(agent)
    feat = torch.randn(8, agent.model.features, generator=torch.Generator().manual_seed(0))
    entropy = agent.actor.entropy(agent.actor(feat))
    torch.testing.assert_close(agent.actor_loss(torch.zeros(8), entropy, torch.ones(8)), -entropy)


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))], ids=["discrete", "continuous"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_actor_did_is_recalled_with_its_gradients(
    action: spaces.Space[Any], precision: str, make_agent: Make, roughen: Roughen
) -> None:
    """Imagination keeps what the actor's layers put out: the loss need not compute them again, nor differ for it."""
    agent = make_agent(action={"action": action}, precision=precision, units=32)
    roughen(agent)
    agent.weights.refresh()
    feat = torch.randn(6, agent.model.features, generator=torch.Generator().manual_seed(0)).to(agent.dtype)
    with torch.no_grad():
        imagined, actions, outputs = agent.imagine(feat)
    flat, done = imagined[:-1].flatten(0, 1), actions.flatten(0, 1)
    assert all(output.shape[0] == flat.shape[0] and not output.requires_grad for output in outputs)

    def gradient(params: Tensor) -> Tensor:
        agent.weights.grad.zero_()
        (agent.actor.log_prob(params, done) + 0.1 * agent.actor.entropy(params)).square().mean().backward()
        return agent.weights.grad.clone()

    recalled, again = agent.actor.recall(flat, outputs), agent.actor(flat)
    torch.testing.assert_close(recalled, again)
    own, expected = gradient(recalled), gradient(again)
    assert expected.norm() > 0
    assert (own - expected).norm() / expected.norm() < (1e-6 if precision == "float32" else 0.01)


def test_the_mask_head_is_taught_by_reconstruction(make_agent: Make, make_rows: MakeRows, roughen: Roughen) -> None:
    agent = make_agent(MASKED, loss_scales=dict.fromkeys(LOSSES, 0.0) | {"rec": 1.0})
    roughen(agent)
    total, _, metrics = agent.loss(agent.prepare(make_rows(agent)))
    total.backward()
    assert agent.model.mask is not None
    assert all(p.grad is not None and p.grad.any() for p in agent.model.mask.parameters())
    assert "loss/rec/action_mask" in metrics

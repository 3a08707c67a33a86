"""The parts in which earlier Dreamers differ: Gaussian latents, gradients through the dynamics, no share of uniform."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.algorithms.dreamerv3.gaussian import GaussianRSSM
from oneiros.algorithms.nn.layers import Linear, frozen
from torch.distributions import Normal, kl_divergence

SMALL = {"size": "1m", "deter": 32, "hidden": 16, "groups": 6, "classes": 4, "units": 16, "precision": "float32"}
OBS = {"obs": spaces.Box(-1, 1, (3,))}
BOX = {"action": spaces.Box(-1, 1, (2,))}
CHOICE = {"action": spaces.Discrete(3)}


def agent(action: dict[str, spaces.Space[object]] = BOX, **changes: object) -> DreamerV3:
    return DreamerV3(Hyperparameters(**{**SMALL, **changes}), OBS, action, seed=1)


def batch_for(learner: DreamerV3, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (3, 9)
    classes = learner.action_space["action"]
    action = (
        torch.randint(0, 3, shape, generator=g)
        if isinstance(classes, spaces.Discrete)
        else torch.rand(*shape, 2, generator=g) * 2 - 1
    )
    stored = learner.latent_fields["stoch"].dtype
    stoch = torch.zeros(*shape, learner.model.rssm.groups, dtype=torch.float16 if stored == "float16" else torch.uint8)
    first = torch.zeros(shape, dtype=torch.bool)
    return {
        "obs": torch.rand(*shape, 3, generator=g),
        "action": action,
        "reward": torch.rand(shape, generator=g),
        "is_first": first,
        "is_last": first,
        "is_terminal": first,
        "latent/deter": torch.zeros(*shape, learner.model.rssm.deter, dtype=torch.float16),
        "latent/stoch": stoch,
    }


def test_gaussian_latents_are_normal_distributions() -> None:
    rssm = GaussianRSSM(16, 8, 5, 4, 2)
    g = torch.Generator().manual_seed(0)
    one, other = (torch.randn(7, 10, generator=g) for _ in range(2))
    p, q = rssm.distribution(one), rssm.distribution(other)
    normal, second = Normal(p[:, 0], p[:, 1]), Normal(q[:, 0], q[:, 1])
    torch.testing.assert_close(rssm.kl(p, q), kl_divergence(normal, second).sum(-1))
    torch.testing.assert_close(rssm.entropy(p), normal.entropy().sum(-1))
    assert (p[:, 1] >= 0.1).all()

    uniform = torch.rand(7, 5, generator=g)
    torch.testing.assert_close(rssm.sample(one, uniform), normal.icdf(uniform), rtol=1e-4, atol=1e-4)
    edges = rssm.sample(one, torch.tensor([0.0, 1 - 2**-24, 0.5, 0.0, 0.5]).expand(7, 5))
    assert torch.isfinite(edges).all()
    stored = rssm.pack(edges)
    assert stored.dtype == torch.float16 == rssm.stored
    torch.testing.assert_close(rssm.unpack(stored, torch.float32), edges, rtol=1e-3, atol=1e-3)


def test_what_is_frozen_passes_gradients_on_and_takes_none() -> None:
    layer, x = Linear(3, 2), torch.ones(1, 3, requires_grad=True)
    with frozen([layer]):
        y = layer(x).sum()
    y.backward()
    assert layer.weight.grad is None and x.grad is not None
    torch.testing.assert_close(x.grad[0], layer.weight.detach().sum(0))
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("action", [BOX, CHOICE])
@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_the_dynamics_teach_the_actor_and_nothing_else(latent: str, action: dict[str, spaces.Space[object]]) -> None:
    learner = agent(action, latent=latent, actor_gradient="dynamics", entropy=0.0, imagination_length=3)
    # The heads begin at zero, where every action is worth the same.
    g = torch.Generator().manual_seed(2)
    for head in (learner.model.reward, learner.critic):
        assert head.out is not None
        head.out.weight.data.copy_(0.1 * torch.randn(head.out.weight.shape, generator=g))
    learner.weights.refresh()
    feat = torch.randn(4, learner.model.features, generator=g)
    dream = learner.dream(feat)
    assert dream.returns is not None and dream.returns.shape == (3, 4)
    assert not any(x.requires_grad for x in (dream.feat, dream.action, dream.reward, dream.cont, dream.slow_value))
    learner.weights.grad.zero_()
    dream.returns.sum().backward()
    taught = {name for name, p in learner.actor.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert "mlp.out.weight" in taught
    for module in (learner.model, learner.critic):
        assert all(p.grad is None or not p.grad.any() for p in module.parameters())
        assert all(p.requires_grad for p in module.parameters())


def test_the_gradient_through_the_dynamics_is_the_returns_own() -> None:
    learner = agent(latent="gaussian", actor_gradient="dynamics", imagination_length=3)
    g = torch.Generator().manual_seed(3)
    assert learner.model.reward.out is not None and learner.actor.mlp.out is not None
    learner.model.reward.out.weight.data.copy_(0.2 * torch.randn(255, 16, generator=g))
    feat = torch.randn(4, learner.model.features, generator=g)
    noise = learner.generator.get_state()

    def returns() -> torch.Tensor:
        learner.generator.set_state(noise)
        dream = learner.dream(feat)
        assert dream.returns is not None
        return dream.returns.double().sum()

    bias = learner.actor.mlp.out.bias
    # Small deviations keep actions within [-1, 1], beyond which the model sees them scaled, without a gradient.
    learner.actor.mlp.out.weight.data[2:] = 0
    learner.actor.mlp.out.bias.data[2:] = -20
    assert bias is not None and bias.grad is not None
    learner.weights.grad.zero_()
    returns().backward()
    slope, step = bias.grad[0].item(), 1e-3
    with torch.no_grad():
        bias[0] += step
        above = returns().item()
        bias[0] -= 2 * step
        below = returns().item()
    assert slope != 0 and (above - below) / (2 * step) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"latent": "gaussian", "actor_gradient": "dynamics", "slow_regulariser": 0.0},
        {"unimix": 0.0, "actor_unimix": 0.0, "free_nats": 0.0, "loss_scales": {"dyn": 0.8, "rep": 0.2}},
    ],
)
@pytest.mark.parametrize("action", [BOX, CHOICE])
def test_whole_updates_stay_finite(changes: dict[str, object], action: dict[str, spaces.Space[object]]) -> None:
    learner = agent(action, batch_length=8, imagination_length=3, learning_rate=1e-2, warmup=0, **changes)
    # Posteriors without a share of uniform become certain, which their logarithms must survive.
    learner.model.rssm.post_logits.weight.data.mul_(1000)
    for step in range(5):
        metrics, latents = learner.update(batch_for(learner, step))
        assert math.isfinite(float(metrics["loss/total"])) and not metrics["nonfinite"]
        assert latents["stoch"].dtype == learner.model.rssm.stored

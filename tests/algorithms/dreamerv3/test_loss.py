"""The whole loss, recomputed with plain loops over time from the features that the agent itself reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.nn.distributions import twohot_mean
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.nn import functional as F

OBS = {
    "vector": spaces.Box(-np.inf, np.inf, (5,), np.float32),
    "scalar": spaces.Box(-np.inf, np.inf, (), np.float32),
    "level": spaces.Discrete(4),
    "cards": spaces.MultiDiscrete([2, 3]),
    "image": spaces.Box(0, 255, (16, 16, 3), np.uint8),
}
ACTIONS = {
    "action/move": spaces.Box(-1, 1, (2,), np.float32),
    "action/key": spaces.Discrete(3),
    "action/pair": spaces.MultiDiscrete([2, 4]),
}
WIDTH = 3 + 2 + 4 + 2  # discrete components first, in the order of their keys, then continuous ones


@dataclass
class Recorded:
    """What one call of ``loss`` went through: ``(T, B, ...)`` filtered, ``(H + 1, M, F)`` imagined."""

    total: Tensor
    metrics: dict[str, Tensor]
    rows: dict[str, Tensor]
    deter: Tensor
    stoch: Tensor
    logits: Tensor
    imagined: Tensor
    actions: Tensor


def record(agent: DreamerV3, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Recorded:
    seen: dict[str, Any] = {}
    observe, imagine = agent.model.rssm.observe, agent.imagine

    def spy_observe(*args: Any) -> Any:
        seen["observe"] = observe(*args)
        return seen["observe"]

    def spy_imagine(*args: Any) -> Any:
        seen["imagine"] = imagine(*args)
        return seen["imagine"]

    monkeypatch.setattr(agent.model.rssm, "observe", spy_observe)
    monkeypatch.setattr(agent, "imagine", spy_imagine)
    rows = agent.prepare(batch)
    total, _, metrics = agent.loss(rows)
    latents, logits = seen["observe"]
    return Recorded(total, metrics, rows, latents.deter, latents.stoch, logits, *seen["imagine"][:2])


def categorical(agent: DreamerV3, logits: Tensor, unimix: float) -> Independent:
    rssm = agent.model.rssm
    probs = logits.view(*logits.shape[:-1], rssm.classes, rssm.groups).transpose(-1, -2).softmax(-1)
    return Independent(Categorical(probs=(1 - unimix) * probs + unimix / rssm.classes), 1)


def two_hot_loss(agent: DreamerV3, logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the encoding whose expectation is the target; the order of the logits is read off."""
    bins = agent.model.bins
    n = len(bins)
    means = twohot_mean(torch.full((n, n), -200.0).fill_diagonal_(200.0), bins)
    order = (bins[:, None] - means).abs().argmin(1)
    log_probs = torch.log_softmax(logits.detach(), -1)[..., order]
    above = (bins <= target[..., None]).sum(-1).clamp(1, n - 1)
    share = ((target - bins[above - 1]) / (bins[above] - bins[above - 1])).clamp(0, 1)
    return -(
        (1 - share) * log_probs.gather(-1, above[..., None] - 1)[..., 0]
        + share * log_probs.gather(-1, above[..., None])[..., 0]
    )


def policy_distributions(agent: DreamerV3, feat: Tensor) -> tuple[list[Categorical], Normal]:
    params = agent.actor.mlp(feat).detach()
    discrete, mean, std = params.split([9, 2, 2], -1)
    unimix = agent.config.actor_unimix
    return (
        [Categorical(probs=(1 - unimix) * x.softmax(-1) + unimix / x.shape[-1]) for x in discrete.split([3, 2, 4], -1)],
        Normal(torch.tanh(mean), 0.9 * torch.sigmoid(std + 2) + 0.1),
    )


def returns_by_recursion(reward: Tensor, live: Tensor, keep: Tensor, value: Tensor) -> Tensor:
    """``R_t = r_{t+1} + live_{t+1} ((1 - keep_{t+1}) v_{t+1} + keep_{t+1} R_{t+1})``, time first; ``R_T = v_T``."""

    def at(t: int) -> Tensor:
        if t == len(reward) - 1:
            return value[t]
        return reward[t + 1] + live[t + 1] * ((1 - keep[t + 1]) * value[t + 1] + keep[t + 1] * at(t + 1))

    return torch.stack([at(t) for t in range(len(reward) - 1)])


def expected_losses(agent: DreamerV3, seen: Recorded, starts: int | None = None) -> dict[str, float]:
    c, model, rows = agent.config, agent.model, seen.rows
    T, B = rows["is_first"].shape
    K, H = starts or T, c.imagination_length
    losses: dict[str, Tensor] = {}
    with torch.no_grad():
        feat = torch.cat([seen.deter, seen.stoch], -1)
        flat = feat.flatten(0, 1)

        # World model
        post, prior = (categorical(agent, x, c.unimix) for x in (seen.logits, model.rssm.prior_net(seen.deter)))
        losses["dyn"] = losses["rep"] = kl_divergence(post, prior).clamp(min=c.free_nats)
        losses["rew"] = two_hot_loss(agent, model.reward(flat), rows["reward"])
        target = torch.where(rows["is_terminal"] > 0, 0.0, 1 - 1 / 333)
        p = torch.sigmoid(model.cont(flat)[:, 0])
        losses["con"] = -(target * p.log() + (1 - target) * (1 - p).log())
        out = model.decoder(flat)
        losses["rec/image"] = (out["image"] - rows["image"].float() / 255).square().sum((1, 2, 3))
        for key in ("vector", "scalar"):
            truth = rows[key].reshape(T * B, -1)
            losses[f"rec/{key}"] = (out[key] - truth.sign() * torch.log1p(truth.abs())).square().sum(-1)
        losses["rec/level"] = F.cross_entropy(out["level"], rows["level"].long(), reduction="none")
        losses["rec/cards"] = sum(
            F.cross_entropy(x, rows["cards"][:, i].long(), reduction="none")
            for i, x in enumerate(out["cards"].split([2, 3], -1))
        )  # type: ignore[assignment]

        # Actor and critic
        imagined = seen.imagined
        assert imagined.shape == (H + 1, K * B, feat.shape[-1])
        torch.testing.assert_close(imagined[0], feat[T - K :].flatten(0, 1))
        reward = twohot_mean(model.reward(imagined.flatten(0, 1)), model.bins).view(H + 1, -1)
        cont = torch.sigmoid(model.cont(imagined.flatten(0, 1))[:, 0]).view(H + 1, -1)
        logits = agent.critic(imagined.flatten(0, 1)).view(H + 1, K * B, -1)
        value = twohot_mean(logits.flatten(0, 1), model.bins).view(H + 1, -1)
        slow = twohot_mean(agent.slow_critic(imagined.flatten(0, 1)), model.bins).view(H + 1, -1)
        returns = returns_by_recursion(reward, cont, torch.full_like(cont, c.lam), value)
        weight = torch.stack([cont[: t + 1].prod(0) for t in range(H)])
        low, high = (0.01 * np.percentile(returns.numpy(), q) for q in (5, 95))
        advantage = (returns - value[:-1]) / max(1.0, high - low)
        discrete, normal = policy_distributions(agent, imagined[:-1])
        entropy = normal.entropy().sum(-1) + sum(d.entropy() for d in discrete)
        one_hots, continuous = seen.actions.split([9, 2], -1)
        log_prob = normal.log_prob(continuous).sum(-1)
        log_prob = log_prob + sum(
            d.log_prob(x.argmax(-1)) for d, x in zip(discrete, one_hots.split([3, 2, 4], -1), strict=True)
        )
        losses["policy"] = -weight * (advantage * log_prob + 3e-4 * entropy)
        losses["value"] = weight * (
            two_hot_loss(agent, logits[:-1], returns) + two_hot_loss(agent, logits[:-1], slow[:-1])
        )

        # Replay critic
        replayed = {k: rows[k].view(T, B)[T - K :] for k in ("reward", "is_last", "is_terminal")}
        targets = returns_by_recursion(
            replayed["reward"],
            (1 - replayed["is_terminal"]) * (1 - 1 / 333),
            (1 - replayed["is_last"]) * c.lam,
            returns[0].view(K, B),
        )
        logits = agent.critic(feat[T - K :])[:-1]
        both = two_hot_loss(agent, logits, targets) + two_hot_loss(agent, logits, slow[0].view(K, B)[:-1])
        losses["repval"] = (1 - replayed["is_last"][:-1]) * both
    return {k: v.mean().item() for k, v in losses.items()}


@pytest.mark.parametrize("starts", [None, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_loss_and_their_total(
    starts: int | None,
    seed: int,
    make_agent: Callable[..., DreamerV3],
    make_rows: Callable[..., dict[str, Tensor]],
    roughen: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = make_agent(OBS, ACTIONS, seed=seed, imagination_starts=starts)
    roughen(agent, seed=seed)
    assert agent.layout.width == WIDTH
    batch = make_rows(agent, seed=seed)
    assert batch["is_last"][:, 1:-1].any(), "ends inside the trained rows"
    seen = record(agent, batch, monkeypatch)
    expected = expected_losses(agent, seen, starts)
    found = {k.removeprefix("loss/"): v.item() for k, v in seen.metrics.items() if k.startswith("loss/")}
    total = found.pop("total")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=2e-4, abs=1e-5), key
    scales = {"rep": 0.1, "repval": 0.3}
    assert total == pytest.approx(sum(scales.get(k, 1.0) * v for k, v in expected.items()), rel=2e-4)
    assert seen.total.item() == total


def test_loss_scales_weight_their_losses(
    make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]], roughen: Callable[..., None]
) -> None:
    names = ("rec", "rew", "con", "dyn", "rep", "policy", "value", "repval")
    for name in names:
        agent = make_agent(OBS, ACTIONS, loss_scales=dict.fromkeys(names, 0.0) | {name: 2.5})
        roughen(agent)
        total, _, metrics = agent.loss(agent.prepare(make_rows(agent)))
        own = [v.item() for k, v in metrics.items() if k.split("/")[:2] == ["loss", name]]
        assert len(own) == (5 if name == "rec" else 1)
        assert total.item() == pytest.approx(2.5 * sum(own), rel=1e-5), name


@pytest.mark.parametrize(
    ("last", "terminal", "target"), [(False, False, 332 / 333), (True, False, 332 / 333), (True, True, 0.0)]
)
def test_only_a_terminal_step_lowers_the_continuation_target(
    last: bool,
    terminal: bool,
    target: float,
    make_agent: Callable[..., DreamerV3],
    make_rows: Callable[..., dict[str, Tensor]],
) -> None:
    agent = make_agent()
    assert agent.model.cont.out is not None and agent.model.cont.out.bias is not None
    agent.model.cont.out.weight.data.zero_()
    agent.model.cont.out.bias.data.fill_(1.5)
    rows = make_rows(agent, ends=False)
    rows["is_last"][:] = last
    rows["is_terminal"][:] = terminal
    _, _, metrics = agent.loss(agent.prepare(rows))
    p = 1 / (1 + math.exp(-1.5))
    expected = -(target * math.log(p) + (1 - target) * math.log(1 - p))
    assert metrics["loss/con"].item() == pytest.approx(expected, rel=1e-5)
    # What is predicted is the discount of imagination itself.
    assert metrics["imagined/continue"].item() == pytest.approx(p, rel=1e-5)


def test_the_context_row_is_not_trained_on(
    make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]], roughen: Callable[..., None]
) -> None:
    """Of the context row only the action and the latents matter."""
    losses = []
    for change in (None, "obs", "reward", "is_first", "is_terminal", "is_last", "action", "latent/deter"):
        agent = make_agent()
        roughen(agent)
        rows = make_rows(agent)
        if change:
            value = rows[change][:, 0]
            rows[change][:, 0] = ~value if value.dtype == torch.bool else (value + 1) % 3
        losses.append(agent.loss(agent.prepare(rows))[0].item())
    assert losses[1:6] == losses[:1] * 5
    assert losses[6] != losses[0] and losses[7] != losses[0]


def test_the_slow_critic_follows_by_two_percent_an_update(
    make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]], roughen: Callable[..., None]
) -> None:
    agent = make_agent(warmup=0, learning_rate=1e-2)
    roughen(agent)
    for update in range(3):
        before = [p.clone() for p in agent.slow_critic.parameters()]
        agent.update(make_rows(agent, seed=update))
        for old, slow, fast in zip(before, agent.slow_critic.parameters(), agent.critic.parameters(), strict=True):
            torch.testing.assert_close(slow.data, 0.98 * old + 0.02 * fast.data)


def test_values_and_rewards_are_exactly_zero_before_the_first_update(
    make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]]
) -> None:
    for precision in ("float32", "bfloat16"):
        agent = make_agent(OBS, ACTIONS, precision=precision)
        metrics, _ = agent.update(make_rows(agent))
        for key in ("imagined/reward", "imagined/value", "imagined/return", "replay/value", "advantage_magnitude"):
            assert metrics[key].item() == 0.0, key
        assert metrics["return_scale"].item() == 1.0
        assert metrics["loss/rew"].item() == pytest.approx(math.log(255), rel=1e-4)

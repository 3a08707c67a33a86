"""The agent fulfils the contract for agents of unlike spaces, that come and go, in every variant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.belief import Belief, Hyperparameters
from oneiros.algorithms.contract import SIGNAL, Agent, UnsupportedSpace

Rows = dict[str, torch.Tensor]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"variant": "independent"},
    {"variant": "centralised"},
    {"first_order": False},
    {"reward": "team", "replay_context": 0},
    {"channel": {"tokens": 2, "vocabulary": 4, "gate": "believed_wrong"}, "zero_order_gradient": True},
    {"channel": {"tokens": 2, "vocabulary": 4, "gate": "believed_wrong"}, "zero_order_reads": "posterior"},
    {"channel": {"tokens": 2, "vocabulary": 4, "shuffled": True}, "zero_order_gradient": True},
]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_updates_change_every_part_and_are_finite(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows], overrides: dict[str, Any]
) -> None:
    agent = make_agent(**overrides, warmup=0)
    assert isinstance(agent, Agent)
    before = {k: v.clone() for k, v in agent._named().items() if not k.startswith("optimiser")}
    rows = make_batch(agent)
    for _ in range(3):
        metrics, latents = agent.update(rows)
    assert all(bool(torch.isfinite(v).all()) for v in metrics.values()), metrics
    assert float(metrics["nonfinite"]) == 0
    B, T = agent.config.batch_size, agent.config.batch_length
    for key, field in agent.latent_fields.items():
        assert latents[key].shape == (B, T, *field.shape)
    assert latents[SIGNAL].shape == (B,) and bool((latents[SIGNAL] > 0).all())
    gated = "channel" in overrides
    for name, parameter in agent.model.named_parameters():
        # A gated channel may stay silent, and then nobody learns to speak.
        if not (gated and ("speech" in name or "heard" in name)):
            assert not torch.equal(parameter, before[f"model/{name}"]), name


def test_two_agents_alike_learn_alike_and_a_restored_one_goes_on_alike(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
) -> None:
    one, other = make_agent(), make_agent()
    rows = make_batch(one)
    for agent in (one, other):
        agent.update(rows)
    restored = make_agent(seed=5)
    restored.load_state_dict(one.state_dict())
    for agent in (one, other, restored):
        agent.update(rows)
    states = [agent.state_dict() for agent in (one, other, restored)]
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]) and torch.equal(states[0][key], states[2][key]), key


def test_a_policy_with_the_learners_weights_acts_as_the_learner(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    learner, policy = make_agent(), make_agent(role="policy")
    policy.load_policy_state(learner.policy_state())
    first = torch.ones(4, dtype=torch.bool)
    acted = [agent.act(make_obs(), first, agent.initial_state(4), "eval") for agent in (learner, policy)]
    for one, other in zip(*acted, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert sum(p.numel() for p in policy.model.parameters()) < sum(p.numel() for p in learner.model.parameters())
    assert policy.model.decoder is None and not hasattr(policy, "critic")
    with pytest.raises(ValueError, match="numbers, but this policy has"):
        policy.load_policy_state({"weights": torch.zeros(3)})


def test_masked_actions_are_never_taken(make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]) -> None:
    agent = make_agent(rough=1.0)
    obs = make_obs(500)
    obs["agent/cat/action_mask"] = torch.tensor([0, 1, 1]).expand(500, 3)
    action, _, _ = agent.act(obs, torch.ones(500, dtype=torch.bool), agent.initial_state(500))
    assert set(action["action/cat"].tolist()) == {1, 2}
    assert set(action["action/ann"].tolist()) <= set(range(5))


def test_an_agent_that_joins_remembers_nothing_from_before(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    def joined(seed: int) -> torch.Tensor:
        agent = make_agent()
        state = agent.initial_state(4)
        for t in range(3):
            obs = make_obs(seed=seed + t)
            obs["agent/ann/alive"] = torch.zeros(4, dtype=torch.int64)
            _, state, _ = agent.act(obs, torch.full((4,), t == 0), state)
        _, state, _ = agent.act(make_obs(seed=99), torch.zeros(4, dtype=torch.bool), state)
        return state["deter"]

    one, other = joined(0), joined(50)
    assert torch.equal(one[:, 0], other[:, 0])
    assert not torch.equal(one[:, 1], other[:, 1]), "the control: those who stayed remember"


def test_those_who_are_gone_teach_nothing(make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]) -> None:
    def learnt(strange: bool) -> tuple[torch.Tensor, torch.Tensor]:
        agent = make_agent(replay_context=0)
        rows = make_batch(agent)
        rows["agent/ann/alive"] = torch.zeros_like(rows["agent/ann/alive"])
        if strange:
            rows["agent/ann/obs"] = 3 * torch.ones_like(rows["agent/ann/obs"])
            rows["training/ann/reward"] = rows["training/ann/reward"] + 5
            rows["training/ann/belief/goal"] = torch.zeros_like(rows["training/ann/belief/goal"])
            rows["action/ann"] = torch.zeros_like(rows["action/ann"])
        loss, _, _ = agent.loss(agent.prepare(rows))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), agent.weights.grad.clone()

    (loss, grad), (other_loss, other_grad) = learnt(False), learnt(True)
    assert torch.allclose(loss, other_loss, rtol=1e-5)
    assert torch.allclose(grad, other_grad, rtol=1e-3, atol=1e-5)


def test_spaces_that_it_cannot_serve_are_named() -> None:
    config = Hyperparameters()
    bare = {"obs": spaces.Box(-1, 1, (3,), np.float32)}
    with pytest.raises(UnsupportedSpace, match=r"environment of several agents.*choose dreamerv3"):
        Belief(config, bare, {"action": spaces.Discrete(2)})
    joint: dict[str, spaces.Space[Any]] = {"agent/ann/alive": spaces.Discrete(2), "agent/ann/obs": bare["obs"]}
    with pytest.raises(UnsupportedSpace, match="'action/bob' is of no agent; there are ann"):
        Belief(config, joint, {"action/ann": spaces.Discrete(2), "action/bob": spaces.Discrete(2)})


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="independent agents send no messages"):
        Hyperparameters(variant="independent", channel={"tokens": 1})
    with pytest.raises(ValueError, match="the gate believed_wrong needs beliefs about partners"):
        Hyperparameters(first_order=False, channel={"tokens": 1, "gate": "believed_wrong"})


@pytest.mark.parametrize("target", ["policy", "replayed"])
def test_intents_are_those_of_the_policy_and_not_of_whoever_played_before(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows], target: str
) -> None:
    only = dict.fromkeys(Hyperparameters().loss_scales.model_dump(), 0.0) | {"intent": 1.0}
    agent = make_agent(
        rough=0.0, loss_scales=only, intent_target=target, learning_rate=1e-2, warmup=0, replay_context=0
    )
    rows = make_batch(agent)
    for name in ("ann", "bob"):
        rows[f"action/{name}"] = torch.zeros_like(rows[f"action/{name}"])
    for _ in range(60):
        agent.update(rows)
    prepared = agent.prepare(rows)
    with torch.no_grad():
        deter, stoch, _, _ = agent.observe(prepared)
        feat = agent.model.feat(deter, stoch).flatten(0, 1)
        assert agent.model.first is not None
        of_ann = torch.softmax(agent.model.first.intents(feat)[:, 1, 0, :5], -1).mean(0)
        policy = agent.intended(feat, None)[:, 0, :5].mean(0)
    # Nothing taught the actor, which still does everything about equally often; in the rows, Ann only ever did 0.
    assert float((policy - 0.2).abs().max()) < 0.05
    if target == "policy":
        torch.testing.assert_close(of_ann, policy, atol=0.05, rtol=0)
    else:
        assert float(of_ann[0]) > 0.9


def test_a_policy_can_be_held_to_fewer_bits(make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]) -> None:
    agent = make_agent(channel={"tokens": 2, "vocabulary": 4})
    sent = {}
    for bits in (None, 9.0, 0.0):
        agent.limit_bits(bits)
        state = agent.initial_state(4)
        for t in range(4):
            _, state, _ = agent.act(make_obs(seed=t), torch.full((4,), t == 0), state)
        sent[bits] = state["bits"].unique().tolist()
    assert sent == {None: [16.0], 9.0: [8.0], 0.0: [0.0]}
    with pytest.raises(ValueError, match="send no messages"):
        make_agent().limit_bits(4.0)


def test_latents_can_be_made_to_say_something_before_anything_was_learnt(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    def differing(scale: float) -> float:
        """How often two samples of the same posterior differ."""
        agent = make_agent(posterior_scale=scale, unimix=0.0, rough=0.0)
        first, obs = torch.ones(200, dtype=torch.bool), make_obs(200)
        stoch = [agent.act(obs, first, agent.initial_state(200))[2]["stoch"] for _ in range(2)]
        return float((stoch[0] != stoch[1]).float().mean())

    assert differing(1.0) > 1.5 * differing(6.0) > 0


def test_where_nobody_learns_to_act_nothing_is_imagined(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_update(**scales: float) -> Rows:
        agent = make_agent(loss_scales=scales, warmup=0)
        before = [p.detach().clone() for module in (agent.actor, agent.critic) for p in module.parameters()]
        metrics: Rows = agent.update(make_batch(agent))[0]
        after = [p for module in (agent.actor, agent.critic) for p in module.parameters()]
        learns = not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert learns == agent.config.learns_to_act == ("loss/policy" in metrics)
        return metrics

    metrics = one_update(value=0.1)
    assert {"loss/value", "imagined/return", "loss/zero"} <= metrics.keys()
    monkeypatch.delattr(Belief, "imagine")
    metrics = one_update(policy=0, value=0, repval=0)
    assert {"loss/rec/own", "loss/zero", "loss/total"} <= metrics.keys()

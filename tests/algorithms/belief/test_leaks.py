"""No agent knows what it was not told: the tests of the reference sheet, each beside a control that must leak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oneiros.algorithms.belief import Belief

Rows = dict[str, torch.Tensor]
ANN, BOB, CAT = 0, 1, 2
SPEAK = {"channel": {"tokens": 2, "vocabulary": 4}}


def acted(agent: Belief, observations: list[Rows]) -> dict[str, torch.Tensor]:
    """What every agent remembered, did and said while seeing ``observations``: ``(T, N, G, ...)``."""
    N = len(observations[0]["agent/ann/alive"])
    agent.act_generator.manual_seed(7)
    state, seen = agent.initial_state(N), []
    for t, obs in enumerate(observations):
        _, state, latents = agent.act(obs, torch.full((N,), t == 0), state)
        feat = agent.model.feat(state["deter"], state["stoch"])
        logits = agent.actor(torch.cat([feat, agent.intents(feat)], -1))
        step = {**{k: state[k] for k in ("deter", "stoch", "action")}, "logits": logits.detach()}
        if "messages" in latents:
            step["messages"] = latents["messages"].transpose(1, 2)
        seen.append(step)
    return {k: torch.stack([step[k] for step in seen]) for k in seen[0]}


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], agent: int) -> set[str]:
    """What of ``agent`` is not bitwise the same."""
    return {k for k in one if not torch.equal(one[k][:, :, agent], other[k][:, :, agent])}


@pytest.fixture
def changed(make_obs: Callable[..., Rows]) -> tuple[list[Rows], list[Rows]]:
    """Two histories that differ in what Ann and Cat see, and not in what Bob sees."""
    one = [make_obs(seed=t) for t in range(5)]
    other = [dict(obs) for obs in one]
    for t, obs in enumerate(other):
        strange = make_obs(seed=100 + t)
        obs["agent/ann/obs"], obs["agent/cat/seen"] = strange["agent/ann/obs"], strange["agent/cat/seen"]
    return one, other


class TestWhatOthersSee:
    def test_changes_nothing_in_an_agent_bit_for_bit(self, make_agent: Callable[..., Belief], changed: Any) -> None:
        agent = make_agent()
        one, other = (acted(agent, history) for history in changed)
        assert differ(one, other, BOB) == set()
        assert differ(one, other, ANN) >= {"deter", "stoch", "logits"}, "the control: Ann sees the change"

    @pytest.mark.parametrize("overrides", [SPEAK, {"variant": "centralised"}])
    def test_control_what_is_said_or_shared_does_arrive(
        self, make_agent: Callable[..., Belief], changed: Any, overrides: dict[str, Any]
    ) -> None:
        agent = make_agent(**overrides)
        one, other = (acted(agent, history) for history in changed)
        assert differ(one, other, BOB) >= {"deter", "logits"}

    @pytest.mark.parametrize(
        "channel",
        [
            {**SPEAK["channel"], "drop_rate": 1.0},
            {**SPEAK["channel"], "listeners": {"ann": ["cat"], "cat": ["ann"]}},
            {**SPEAK["channel"], "bit_budget": 1.0},
        ],
    )
    def test_a_channel_that_carries_nothing_to_it_leaks_nothing(
        self, make_agent: Callable[..., Belief], changed: Any, channel: dict[str, Any]
    ) -> None:
        agent = make_agent(channel=channel)
        one, other = (acted(agent, history) for history in changed)
        assert differ(one, other, BOB) == set()

    def test_permuting_the_other_agents_rows_changes_nothing(
        self, make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
    ) -> None:
        agent = make_agent()
        one = [make_obs(seed=t) for t in range(4)]
        other = [{**obs, "agent/ann/obs": obs["agent/bob/obs"], "agent/bob/obs": obs["agent/ann/obs"]} for obs in one]
        first, second = acted(agent, one), acted(agent, other)
        assert differ(first, second, CAT) == set()
        assert differ(first, second, ANN), "the control: those whose rows were permuted notice"


class TestGradients:
    def gradients(self, agent: Belief, rows: Rows, of: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Any:
        """Gradient of a sum of Bob's numbers with respect to what each agent sees, summed over rows and columns."""
        prepared = agent.prepare(rows)
        prepared["seen"].requires_grad_()
        deter, stoch, _, _ = agent.observe(prepared)
        T, B, G = prepared["begins"].shape
        feat = agent.model.feat(deter, stoch)
        before = torch.cat([prepared["stoch"][None], stoch[:-1]])
        shape = (T * B, G, -1)
        prior = agent.model.prior(
            deter.view(shape), before.view(shape), prepared["prev_action"].view(shape), prepared["alive"]
        )
        of({"feat": feat.flatten(0, 1), "prior": prior}).square().sum().backward()
        grad = prepared["seen"].grad
        assert grad is not None
        return grad.abs().sum((0, 2))

    def test_of_an_agents_own_mind_are_exactly_zero_from_the_others(
        self, make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
    ) -> None:
        agent = make_agent(zero_order_gradient=True, first_order_gradient=True)
        assert agent.model.zero is not None and agent.model.first is not None
        zero, first = agent.model.zero, agent.model.first
        reads: list[Callable[[dict[str, torch.Tensor]], torch.Tensor]] = [
            lambda x: x["feat"][:, BOB],
            lambda x: zero(x["feat"])[:, BOB],
            lambda x: first(x["feat"]).latent[:, BOB],
            lambda x: first(x["feat"]).target[:, BOB],
            lambda x: first(x["feat"]).action[:, BOB],
        ]
        for read in reads:
            grad = self.gradients(agent, make_batch(agent), read)
            assert grad[ANN] == 0 and grad[CAT] == 0
            assert grad[BOB] > 0, "the control: from its own there is one"

    def test_control_nature_and_messages_have_one(
        self, make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
    ) -> None:
        agent = make_agent()
        assert self.gradients(agent, make_batch(agent), lambda x: x["prior"][:, BOB])[ANN] > 0
        agent = make_agent(**SPEAK)
        assert self.gradients(agent, make_batch(agent), lambda x: x["feat"][:, BOB])[ANN] > 0


class TestImagination:
    def test_context_decides_what_an_agent_perceives_and_never_what_it_remembers(
        self, make_agent: Callable[..., Belief]
    ) -> None:
        agent = make_agent()
        generator = torch.Generator().manual_seed(0)
        M, G, rssm = 64, 3, agent.model.rssm
        deter = torch.randn(M, G, rssm.deter, generator=generator)
        stoch = rssm.unpack(torch.randint(0, 4, (M, G, rssm.groups), generator=generator), torch.float32)
        action = torch.zeros(M, G, agent.seats.actions.width)
        uniform, alive = torch.rand(M, G, rssm.groups, generator=generator), torch.ones(M, G)
        strange = deter.clone()
        strange[:, [ANN, CAT]] = torch.randn(M, 2, rssm.deter, generator=generator)
        with torch.no_grad():
            h1, z1 = agent.model.imagine_step(deter, stoch, action, alive, uniform)
            h2, z2 = agent.model.imagine_step(strange, stoch, action, alive, uniform)
        assert torch.equal(h1[:, BOB], h2[:, BOB])
        assert not torch.equal(z1[:, BOB], z2[:, BOB])

    def test_those_who_are_gone_are_no_context(self, make_agent: Callable[..., Belief]) -> None:
        agent = make_agent()
        assert agent.model.referee is not None
        feat = torch.randn(5, 3, agent.model.features)
        alive = torch.tensor([[0.0, 1.0, 1.0]]).expand(5, 3)
        strange = feat.clone()
        strange[:, ANN] = 7.0
        assert torch.equal(agent.model.referee(feat, alive)[:, BOB], agent.model.referee(strange, alive)[:, BOB])
        alone = torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)
        assert agent.model.referee(feat, alone)[:, BOB].abs().max() == 0


class TestProbe:
    """A linear probe for Cat's secret, trained on half of the rows of an agent and scored on the other half."""

    @staticmethod
    def accuracy(features: torch.Tensor, secret: torch.Tensor) -> float:
        half = len(secret) // 2
        x = torch.cat([features, torch.ones(len(features), 1)], -1).double()
        y = torch.nn.functional.one_hot(secret, 4).double()
        ridge = x[:half].T @ x[:half] + 1e-2 * torch.eye(x.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(ridge, x[:half].T @ y[:half])
        return float(((x[half:] @ weights).argmax(-1) == secret[half:]).double().mean())

    @pytest.mark.parametrize("channel", ["off", "on", "shuffled"])
    def test_finds_the_secret_where_it_was_told_and_nowhere_else(
        self, make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], channel: str
    ) -> None:
        wide = {"rough": 1.0, "units": 64, "hidden": 64, "groups": 16, "deter": 64}
        carried = {"tokens": 4, "vocabulary": 8, "shuffled": channel == "shuffled"}
        agent = make_agent(**wide, **({} if channel == "off" else {"channel": carried}))
        N = 4000
        first = make_obs(N, seed=0)
        later = [{**make_obs(N, seed=t), "agent/cat/seen": first["agent/cat/seen"]} for t in range(1, 4)]
        seen = acted(agent, [first, *later])
        features = torch.cat([seen["deter"][-1], seen["stoch"][-1]], -1)
        secret = first["agent/cat/seen"]
        assert self.accuracy(features[:, CAT], secret) > 0.9, "the control: Cat knows it"
        told = self.accuracy(features[:, BOB], secret)
        # Chance is 0.25 of 2,000 rows: three standard deviations are 0.03.
        assert told > 0.29 if channel == "on" else abs(told - 0.25) < 0.035


def test_acting_never_asks_for_what_only_training_may_know(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    class Guarded(dict[str, torch.Tensor]):
        def __getitem__(self, key: str) -> torch.Tensor:
            assert not key.startswith("training/"), key
            return super().__getitem__(key)

    agent = make_agent(**SPEAK)
    obs = make_obs()
    state = agent.initial_state(4)
    plain = agent.act(Guarded(obs), torch.ones(4, dtype=torch.bool), state)[0]
    agent = make_agent(**SPEAK)
    labels = {"training/bob/belief/goal": torch.from_numpy(np.arange(4))}
    labelled = agent.act(Guarded({**obs, **labels}), torch.ones(4, dtype=torch.bool), state)[0]
    assert all(torch.equal(plain[k], labelled[k]) for k in plain)

"""The gate opens where an agent believes that a partner who listens believes otherwise, and nowhere else.

What the heads say is set by hand; everything from there to what is sent, paid for and read is what acting does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oneiros.algorithms.belief import Belief
from oneiros.algorithms.belief.minds import PartnerBeliefs
from oneiros.algorithms.contract import UnsupportedSpace
from torch import Tensor, nn

Rows = dict[str, Tensor]
ANN, BOB, CAT = 0, 1, 2
GATED = {"tokens": 2, "vocabulary": 4, "gate": "believed_wrong"}
HERE = torch.tensor([4.0, 0.0, 0.0])
"""Logits of the goal's three values."""
THERE, NEARLY = HERE.flip(0), torch.tensor([4.0, 0.0, 2.5])
"""About 3.8 and 0.2 nats from ``HERE``."""
BITS = 4.0


def say(head: Any, columns: slice, logits: Tensor) -> None:
    """Have the last layer ``head`` put out ``logits`` whatever it reads; of minds apart, all of them."""
    with torch.no_grad():
        head.weight.zero_()
        head.bias[..., columns] = logits


def believing(agent: Belief, own: Tensor, of_partners: Tensor) -> Belief:
    """Everybody believes ``own`` about the goal, and of everybody that they believe ``of_partners``."""
    zero, first = agent.model.zero, agent.model.first
    assert zero is not None and first is not None
    say(zero.mlp.out, slice(0, 3), own)
    say(first.mind, slice(first.widths[0], None), of_partners)
    return agent


def spoken(agent: Belief, make_obs: Callable[..., Rows], steps: int = 3) -> list[list[bool]]:
    """Who spoke in each step; what was paid for, carried and read must say the same."""
    read: list[Tensor] = []
    deliver = agent.channel.deliver

    def listen(traffic: Any) -> Tensor:
        heard = deliver(traffic)
        read.append(heard.view(4, 3, 3, -1).sum(-1).amax((0, 1)) > 0)
        return heard

    agent.channel.deliver = listen  # type: ignore[method-assign]
    state, spoke = agent.initial_state(4), []
    for t in range(steps):
        paid = state["bits"]
        _, state, latents = agent.act(make_obs(seed=t), torch.full((4,), t == 0), state)
        speaks = (latents["messages"][:, 0] < 4).all(-1)
        assert torch.equal(state["bits"] - paid, speaks * BITS)
        assert bool((speaks == speaks[0]).all()), "in all environments alike: so were the beliefs"
        spoke.append(speaks[0].tolist())
    assert [r.tolist() for r in read] == [[False] * 3, *spoke[:-1]], "what was said is read in the next step"
    return spoke


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("reads", ["sample", "posterior"])
def test_it_opens_where_the_partner_is_believed_wrong_and_not_where_it_agrees(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], weights: str, reads: str
) -> None:
    def said(own: Tensor, of_partners: Tensor, **more: Any) -> list[list[bool]]:
        agent = make_agent(weights=weights, zero_order_reads=reads, channel=GATED | more)
        return spoken(believing(agent, own, of_partners), make_obs)

    everybody, nobody = [[True] * 3] * 3, [[False] * 3] * 3
    assert said(HERE, THERE) == everybody
    assert said(HERE, HERE) == nobody == said(THERE, THERE)
    assert said(HERE, NEARLY) == nobody
    assert said(HERE, NEARLY, gate_nats=0.1) == everybody
    assert said(HERE, HERE, gate="always") == everybody, "the control: without a gate they do not mind"


def test_only_she_speaks_who_believes_her_partners_wrong(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    for speaker in (ANN, BOB, CAT):
        agent = believing(make_agent(weights="separate", channel=GATED), HERE, HERE)
        first = agent.model.first
        assert first is not None and first.mind.bias is not None
        with torch.no_grad():
            first.mind.bias[speaker, first.widths[0] :] = THERE
        assert spoken(agent, make_obs) == [[g == speaker for g in (ANN, BOB, CAT)]] * 3


class About(nn.Module):
    """Ann believes that ``partner`` believes otherwise; of all others everybody knows that they agree."""

    def __init__(self, agent: Belief, partner: int) -> None:
        super().__init__()
        self.actions, self.partner = agent.seats.actions.width, partner

    def forward(self, feat: Tensor) -> PartnerBeliefs:
        target = HERE.expand(len(feat), 3, 3, 3).clone()
        target[:, ANN, self.partner] = THERE
        return PartnerBeliefs(self.intents(feat), feat, target)

    def intents(self, feat: Tensor) -> Tensor:
        return feat.new_zeros(len(feat), 3, 3, self.actions)


@pytest.mark.parametrize("partner", [ANN, BOB, CAT])
@pytest.mark.parametrize("listener", [BOB, CAT])
def test_only_those_count_who_would_read_it(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], partner: int, listener: int
) -> None:
    heard_by = {"ann": [("ann", "bob", "cat")[listener]], "bob": ["ann", "cat"], "cat": ["ann", "bob"]}
    agent = believing(make_agent(channel=GATED | {"listeners": heard_by}), HERE, HERE)
    agent.model.first = About(agent, partner)  # type: ignore[assignment]
    assert spoken(agent, make_obs) == [[partner == listener, False, False]] * 3


def test_agents_with_nothing_to_disagree_about_cannot_have_one(make_agent: Callable[..., Belief]) -> None:
    everything = make_agent().obs_space
    alone = {k: v for k, v in everything.items() if not k.endswith("/goal") or "ann" in k}
    for obs in (alone, {k: v for k, v in alone.items() if not k.endswith("/goal")}):
        with pytest.raises(
            UnsupportedSpace, match=r"no two agents here have a target in common: channel\.gate must be"
        ):
            make_agent(obs, channel=GATED)
        make_agent(obs, channel=GATED | {"gate": "always"})


def test_it_is_the_same_gate_while_learning(make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]) -> None:
    for of_partners, sent in ((HERE, 0.0), (THERE, BITS)):
        agent = believing(make_agent(channel=GATED, replay_context=0), HERE, of_partners)
        prepared = agent.prepare(make_batch(agent))
        _, _, _, said = agent.observe(prepared)
        steps = torch.diff(said["bits"], dim=0)
        goes_on = ~prepared["first"][1:]
        assert torch.equal(steps[goes_on], torch.full_like(steps[goes_on], sent))
        assert bool(((said["messages"] < 4) == (sent > 0)).all())

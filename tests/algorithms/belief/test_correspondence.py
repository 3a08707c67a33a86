"""What a log says of the messages is what the channel did with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oneiros.algorithms.belief import Belief

Rows = dict[str, torch.Tensor]
NAMES = ("ann", "bob", "cat")
STEPS = 8


def acted(agent: Belief, make_obs: Callable[..., Rows], gone: int | None = None) -> tuple[dict[str, Any], list[Any]]:
    """Rows ``(T, ...)`` of one episode, and what each agent read in each step; Cat is gone from step ``gone`` on."""
    read = []
    deliver = agent.channel.deliver

    def listen(traffic: Any) -> torch.Tensor:
        heard = deliver(traffic)
        read.append(agent.channel.pack(heard.view(1, 3, 3, -1))[0])
        return heard

    agent.channel.deliver = listen  # type: ignore[method-assign]
    assert agent.keep_messages(True)
    state, rows = agent.initial_state(1), []
    for t in range(STEPS):
        obs = make_obs(1, seed=t)
        if gone is not None and t >= gone:
            obs["agent/cat/alive"] = torch.zeros_like(obs["agent/cat/alive"])
        _, state, latents = agent.act(obs, torch.tensor([t == 0]), state)
        rows.append(obs | {f"latent/{k}": v for k, v in latents.items()})
        assert latents.keys() == agent.latent_fields.keys()
    return {k: np.stack([row[k][0].numpy() for row in rows]) for k in rows[0]}, read


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize(
    "channel", [{}, {"drop_rate": 0.5}, {"listeners": {"ann": ["bob", "cat"], "bob": ["ann"]}}, {"bit_budget": 9.0}]
)
def test_every_message_is_accounted_for(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], channel: dict[str, Any], delay: int
) -> None:
    agent = make_agent(channel={"tokens": 2, "vocabulary": 4, "delay": delay, **channel})
    rows, read = acted(agent, make_obs, gone=6)
    log = agent.messages(rows)
    assert [(m["step"], m["from"]) for m in log] == [
        (t, name) for t in range(STEPS) for name in NAMES if name != "cat" or t < 6
    ], "those who are gone have nothing to say"
    everyone = {name: [other for other in NAMES if other != name] for name in NAMES}
    silence = [4, 4]
    told = {(t, to, by): silence for t in range(STEPS) for to in NAMES for by in NAMES}
    for m in log:
        assert m["sent"] == (m["withheld_by"] is None) == (m["bits"] == 4.0)
        assert m["to"] == channel.get("listeners", everyone).get(m["from"], [])
        if m["delivered"] is None:
            assert m["read_by"] == [] and (not m["sent"] or m["dropped"] or m["step"] + delay >= STEPS)
            continue
        assert m["delivered"] == m["step"] + delay and m["sent"] and not m["dropped"]
        assert m["read_by"] == [n for n in m["to"] if n != "cat" or m["delivered"] < 6]
        told |= {(m["delivered"], to, m["from"]): m["tokens"] for to in m["to"]}
    for (t, to, by), tokens in told.items():
        assert read[t][NAMES.index(to), NAMES.index(by)].tolist() == tokens, "it is what the listener was given"
    for g, name in enumerate(NAMES):
        assert sum(m["bits"] for m in log if m["from"] == name) == rows["latent/bits"][-1, g]
    fates = {(m["withheld_by"], m["dropped"]) for m in log}
    if "drop_rate" in channel:
        assert fates == {(None, False), (None, True)}
    elif "bit_budget" in channel:
        assert fates == {(None, False), ("budget", False)}
    else:
        assert fates == {(None, False)}


def test_a_shuffled_message_is_logged_as_said_and_as_it_arrived(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    agent = make_agent(channel={"tokens": 2, "vocabulary": 8, "shuffled": True})
    rows, read = acted(agent, make_obs)
    log = agent.messages(rows)
    for m in log:
        if m["delivered"] is not None:
            sender = NAMES.index(m["from"])
            assert read[m["delivered"]][(sender + 1) % 3, sender].tolist() == m["arrived_as"]
    assert any(m["arrived_as"] != m["tokens"] for m in log)


def test_keeping_messages_changes_nothing_that_is_done_and_can_end(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows]
) -> None:
    agents = [make_agent(channel={"tokens": 2, "vocabulary": 4, "gate": "believed_wrong"}) for _ in range(2)]
    plain = dict(agents[0].latent_fields)
    agents[1].keep_messages(True)
    assert agents[1].latent_fields.keys() == plain.keys() | {"said", "believed_wrong"}
    for t in range(3):
        one, other = (a.act(make_obs(seed=t), torch.full((4,), t == 0), a.initial_state(4)) for a in agents)
        for mine, kept in zip(one, other, strict=True):
            assert all(torch.equal(mine[k], kept[k]) for k in mine)
    agents[1].keep_messages(False)
    assert agents[1].latent_fields == plain
    assert not make_agent().keep_messages(True), "agents without a channel send none"

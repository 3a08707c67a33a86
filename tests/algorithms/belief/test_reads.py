"""Beliefs about targets that read the posterior instead of one sample of it, and what an examination reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.belief import Belief
from oneiros.algorithms.belief.measure import remembered

Rows = dict[str, torch.Tensor]
STEPS = 6


def played(agent: Belief, make_obs: Callable[..., Rows]) -> tuple[dict[str, Any], torch.Tensor]:
    """Rows ``(N, T, ...)`` of an agent that acted, with the posterior's logits ``(N, T, G, S * K)`` of that time."""
    logits: list[torch.Tensor] = []
    observe = agent.model.observe_step

    def recording(*args: Any) -> Any:
        out = observe(*args)
        logits.append(out[2])
        return out

    agent.model.observe_step = recording  # type: ignore[method-assign]
    state = agent.initial_state(4)
    rows = []
    for t in range(STEPS):
        first = torch.tensor([t == 0, t in (0, 3), t == 0, t in (0, 2)])
        obs = make_obs(seed=t)
        action, state, latents = agent.act(obs, first, state)
        rows.append({**obs, **action, "is_first": first, **{f"latent/{k}": v for k, v in latents.items()}})
    agent.model.observe_step = observe  # type: ignore[method-assign]
    return {k: np.stack([row[k].numpy() for row in rows], 1) for k in rows[0]}, torch.stack(logits, 1)


@pytest.mark.parametrize("weights", ["shared", "separate"])
@pytest.mark.parametrize("channel", [{}, {"tokens": 2, "vocabulary": 4, "delay": 2, "drop_rate": 0.3}])
def test_what_was_believed_is_known_again_from_the_rows(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], channel: dict[str, Any], weights: str
) -> None:
    agent = make_agent(zero_order_reads="posterior", channel=channel, weights=weights, rough=0.5)
    with torch.no_grad():
        rows, logits = played(agent, make_obs)
        _, feat, mind = remembered(agent.model, rows)
        believed = agent.model.mind(feat, logits.flatten(0, 1))
        # Replay keeps memories in half precision.
        torch.testing.assert_close(mind, believed, atol=0.02, rtol=0.02)
        assert float((feat - believed).abs().max()) > 0.2, "control: a sample is something else"
        if channel:
            silent = rows | {"latent/messages": np.full_like(rows["latent/messages"], 4)}
            _, _, deaf = remembered(agent.model, silent)
            assert float((deaf - believed).abs().max()) > 0.1, "control: what was heard counts"


def test_a_belief_that_reads_the_posterior_is_the_same_whatever_was_drawn(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
) -> None:
    def losses(reads: str) -> list[float]:
        agent = make_agent(zero_order_reads=reads, zero_order_gradient=True, unimix=0.0)
        rows = agent.prepare(make_batch(agent))
        # Every row begins an episode, so that no memory has a sample in it.
        rows["begins"] = torch.ones_like(rows["begins"])
        return [float(agent.loss(rows)[2]["loss/zero"]) for _ in range(2)]

    one, other = losses("posterior")
    assert one == other
    one, other = losses("sample")
    assert one != other


def test_what_the_posterior_is_shaped_by_is_the_belief(
    make_agent: Callable[..., Belief], make_batch: Callable[..., Rows]
) -> None:
    for shapes in (True, False):
        agent = make_agent(zero_order_reads="posterior", zero_order_gradient=shapes)
        rows = agent.prepare(make_batch(agent))
        _, stoch, logits, _ = agent.observe(rows)
        N, G = rows["alive"].shape
        feat = agent.model.feat(torch.zeros(N, G, agent.model.rssm.deter), stoch.detach().view(N, G, -1))
        beliefs = agent.model.belief_losses(feat, logits.view(N, G, -1), rows | {"intended": rows["action"]})
        assert beliefs["zero"].requires_grad
        (gradient,) = torch.autograd.grad(beliefs["zero"].sum(), logits, allow_unused=True)
        assert (gradient is not None and float(gradient.abs().max()) > 0) == shapes


@pytest.mark.parametrize("reads", ["sample", "posterior"])
def test_images_are_read_again_only_where_beliefs_read_the_posterior(
    make_agent: Callable[..., Belief], make_obs: Callable[..., Rows], reads: str
) -> None:
    seen = {**make_obs(seed=0), "agent/ann/view": torch.zeros(4, 16, 16, 3, dtype=torch.uint8)}
    obs = {**make_agent().obs_space, "agent/ann/view": spaces.Box(0, 255, (16, 16, 3), np.uint8)}
    agent = make_agent(obs, zero_order_reads=reads)
    rows, _ = played(agent, lambda seed: seen)
    kept = {key: value for key, value in rows.items() if agent.reads(key)}
    assert rows.keys() - kept.keys() == ({"agent/ann/view"} if reads == "sample" else set())
    for one, other in zip(remembered(agent.model, rows)[1:], remembered(agent.model, kept)[1:], strict=True):
        assert torch.equal(one, other)

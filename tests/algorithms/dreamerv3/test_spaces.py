"""Every kind of observation that is served, and the one sentence for those that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import Agent, UnsupportedSpace
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor
from torch.nn import functional as F

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]

SERVED = {
    "scalar": spaces.Box(-np.inf, np.inf, (), np.float32),
    "vector": spaces.Box(-np.inf, np.inf, (5,), np.float64),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float32),
    "bytes": spaces.Box(0, 255, (6,), np.uint8),
    "level": spaces.Discrete(4),
    "cards": spaces.MultiDiscrete([2, 3]),
    "board": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "bits": spaces.MultiBinary(4),
}


@pytest.mark.parametrize("key", list(SERVED))
def test_each_kind_of_observation_is_learned_acted_on_and_predicted(
    key: str, make_agent: Make, make_rows: MakeRows
) -> None:
    space = SERVED[key]
    agent = make_agent({key: space}, learning_rate=1e-3, warmup=0)
    assert isinstance(agent, Agent)
    batch = make_rows(agent)
    first, *_, last = (agent.update(batch)[0][f"loss/rec/{key}"].item() for _ in range(15))
    assert last < first
    action, state, _ = agent.act({key: batch[key][:, 0]}, batch["is_first"][:, 0], agent.initial_state(3))
    assert action["action"].shape == (3,) and state["deter"].shape == (3, 32)
    _, latents = agent.model.observe(
        {key: batch[key]}, {"action": batch["action"]}, batch["is_first"], agent.model.initial_state(3)
    )
    predicted = agent.model.predict(latents)
    assert predicted[key].shape == batch[key].shape
    assert predicted["reward"].shape == predicted["continue"].shape == (3, 7)
    assert ((predicted["continue"] > 0) & (predicted["continue"] < 1)).all()


def test_all_kinds_together_one_loss_each(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(SERVED)
    metrics, _ = agent.update(make_rows(agent))
    assert {k for k in metrics if k.startswith("loss/rec/")} == {f"loss/rec/{k}" for k in SERVED}
    widths = 1 + 5 + 6 + 6 + 4 + (2 + 3) + (2 + 3 + 4 + 2) + 4
    assert agent.model.encoder.mlp.blocks[0].linear.weight.shape == (8, widths)


def test_every_component_reaches_the_tokens(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(SERVED)
    batch = make_rows(agent, batch=1, length=3)
    obs = {k: batch[k][:, 0] for k in SERVED}
    tokens = agent.model.encoder(obs, torch.float32)
    for key, space in SERVED.items():
        for i in range(obs[key].numel()):
            changed = obs[key].clone().reshape(-1)
            counts = np.asarray(space.nvec).reshape(-1) if isinstance(space, spaces.MultiDiscrete) else None
            classes = space.n if isinstance(space, spaces.Discrete) else counts[i] if counts is not None else 2
            changed[i] = (changed[i] + 1) % int(classes) if not isinstance(space, spaces.Box) else 100 - changed[i]
            moved = agent.model.encoder(obs | {key: changed.view(obs[key].shape)}, torch.float32)
            assert not torch.equal(moved, tokens), (key, i)


def test_vectors_are_squashed_by_symlog(make_agent: Make) -> None:
    agent = make_agent({"vector": SERVED["vector"]})
    values = torch.tensor([[0.0, 1.0, -1.0, 1e6, -1e6]])
    squashed = torch.sign(values) * torch.log1p(values.abs())
    expected = agent.model.encoder.mlp(squashed)
    torch.testing.assert_close(agent.model.encoder({"vector": values.double()}, torch.float32), expected)


def test_discrete_observations_are_scored_by_cross_entropy(make_agent: Make) -> None:
    agent = make_agent({"cards": spaces.MultiDiscrete([2, 3]), "level": spaces.Discrete(4)})
    feat = torch.randn(6, agent.model.features)
    obs = {"cards": torch.tensor([[0, 2], [1, 1], [1, 0]] * 2), "level": torch.tensor([0, 1, 2, 3, 3, 0])}
    out, losses = agent.model.decoder(feat), agent.model.decoder.losses(feat, obs)
    expected = F.cross_entropy(out["cards"][:, :2], obs["cards"][:, 0], reduction="none")
    expected = expected + F.cross_entropy(out["cards"][:, 2:], obs["cards"][:, 1], reduction="none")
    torch.testing.assert_close(losses["cards"], expected)
    torch.testing.assert_close(losses["level"], F.cross_entropy(out["level"], obs["level"], reduction="none"))
    predicted = agent.model.predict({"deter": feat[:, :32], "stoch": feat[:, 32:]})
    assert torch.equal(predicted["level"], out["level"].argmax(-1))
    assert torch.equal(predicted["cards"][:, 1], out["cards"][:, 2:].argmax(-1))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (16, 16, 3), np.float32),
        spaces.Box(-1, 1, (2, 3, 4, 5), np.float32),
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(3)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
    ],
    ids=["float image", "four axes", "text", "sequence", "graph"],
)
def test_an_observation_that_cannot_be_served_is_named_with_the_choices(space: spaces.Space, make_agent: Make) -> None:
    with pytest.raises(UnsupportedSpace) as error:
        make_agent({"odd/thing": space, "vector": SERVED["vector"]})
    message = str(error.value)
    assert "'odd/thing'" in message and str(space) in message
    assert "uint8 images" in message and "Discrete, MultiDiscrete and MultiBinary" in message
    assert "\n" not in message and isinstance(error.value, ValueError)


def test_a_mask_is_learned_and_predicted_but_not_decoded(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent({"obs": SERVED["vector"], "action_mask": spaces.MultiBinary(3)}, learning_rate=1e-2, warmup=0)
    batch = make_rows(agent, ends=False)
    batch["action_mask"][:] = torch.tensor([1, 0, 1])
    for _ in range(60):
        metrics, _ = agent.update(batch)
    assert metrics["loss/rec/action_mask"] < 0.3
    _, latents = agent.model.observe(
        {k: batch[k] for k in agent.obs_space},
        {"action": batch["action"]},
        batch["is_first"],
        agent.model.initial_state(3),
    )
    assert torch.equal(agent.model.predict(latents)["action_mask"][:, -1], torch.tensor([[1.0, 0.0, 1.0]] * 3))
    assert torch.isfinite(agent.report(batch)["openloop/obs/imagined"])


@pytest.mark.parametrize("action", [spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([5, 5]), spaces.Discrete(4)])
def test_a_mask_that_fits_no_single_choice_is_refused(action: spaces.Space[Any]) -> None:
    obs = {"obs": spaces.Box(-1, 1, (3,)), "action_mask": spaces.MultiBinary(5)}
    with pytest.raises(UnsupportedSpace, match="'action_mask' has 5 entries"):
        DreamerV3.check_spaces(obs, {"action": action})

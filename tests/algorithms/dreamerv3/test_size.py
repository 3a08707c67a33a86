"""The published widths and parameter counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters
from oneiros.algorithms.dreamerv3.actor import ActionLayout, Actor
from oneiros.algorithms.dreamerv3.config import SIZES
from oneiros.algorithms.dreamerv3.world_model import WorldModel
from oneiros.algorithms.nn.layers import MLP
from pydantic import ValidationError

# deter, hidden, classes, depth, units: the table of the paper's newest code.
TABLE = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}
IMAGE = {"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)}


def box(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def count(size: str, obs: dict[str, spaces.Space], action: dict[str, spaces.Space]) -> int:
    """Parameters of everything trained, built without memory."""
    config = Hyperparameters(size=size)
    units, layout = config.width("units"), ActionLayout(action)
    with torch.device("meta"):
        model = WorldModel(config, obs, layout)
        actor = Actor(model.features, layout, config.actor_layers, units, config.actor_unimix)
        critic = MLP(model.features, config.critic_layers, units, config.bins, scale=0.0)
    return sum(p.numel() for module in (model, actor, critic) for p in module.parameters())


def expected_image_count(size: str, actions: int, channels: int = 3, base: int = 4 * 4) -> int:
    """The count of an image model, layer by layer from the paper's description."""
    deter, hidden, classes, depth, units = TABLE[size]
    stoch, feat = 32 * classes, deter + 32 * classes

    def linear(i: int, o: int) -> int:
        return i * o + o

    def block(i: int, o: int) -> int:
        return linear(i, o) + o

    def mlp(i: int, layers: int, o: int) -> int:
        return block(i, units) + (layers - 1) * block(units, units) + linear(units, o)

    def conv(i: int, o: int, norm: bool = True) -> int:
        return 25 * i * o + o + o * norm

    encoder = (
        conv(channels, 2 * depth) + conv(2 * depth, 3 * depth) + conv(3 * depth, 4 * depth) + conv(4 * depth, 4 * depth)
    )
    tokens = base * 4 * depth
    gru = block(deter, hidden) + block(stoch, hidden) + block(actions, hidden)
    gru += 8 * ((deter // 8 + 3 * hidden) * (deter // 8)) + deter + deter
    gru += 8 * ((deter // 8) * (3 * deter // 8)) + 3 * deter
    prior = block(deter, hidden) + block(hidden, hidden) + linear(hidden, stoch)
    posterior = block(deter + tokens, hidden) + linear(hidden, stoch)
    decoder = (
        8 * (deter // 8) * (tokens // 8) + tokens + block(stoch, 2 * units) + linear(2 * units, tokens) + 4 * depth
    )
    decoder += conv(4 * depth, 4 * depth) + conv(4 * depth, 3 * depth) + conv(3 * depth, 2 * depth)
    decoder += conv(2 * depth, channels, norm=False)
    heads = mlp(feat, 1, 255) + mlp(feat, 1, 1) + mlp(feat, 3, actions) + mlp(feat, 3, 255)
    return encoder + gru + prior + posterior + decoder + heads


def test_walker_walk_from_state_has_640867_parameters() -> None:
    obs = {"orientations": box(14), "height": box(), "velocity": box(9)}
    action = {"action": spaces.Box(-1, 1, (6,), np.float32)}
    agent = DreamerV3(Hyperparameters(size="1m"), obs, action)
    assert agent.weights.flat.numel() == 640_867
    trained = {id(p) for p in agent.weights.params}
    assert sum(p.numel() for p in agent.slow_critic.parameters() if id(p) in trained) == 0
    assert count("1m", obs, action) == 640_867


def test_the_table_of_sizes() -> None:
    assert set(SIZES) == set(TABLE)
    for size, widths in TABLE.items():
        config = Hyperparameters(size=size)
        assert tuple(config.width(k) for k in ("deter", "hidden", "classes", "depth", "units")) == widths
        assert config.groups == 32


@pytest.mark.parametrize("size", list(TABLE))
def test_the_count_of_an_image_model(size: str) -> None:
    found = count(size, IMAGE, {"action": spaces.Discrete(6)})
    assert found == expected_image_count(size, actions=6)
    # The names round: 12m is 10.5 million with a small image encoder, 200m is 178 million.
    assert 0.6 < found / (int(size[:-1]) * 1e6) < 1.35


def test_a_width_of_one_s_own_overrides_the_size() -> None:
    config = Hyperparameters(size="12m", deter=128, units=24)
    assert (config.width("deter"), config.width("units"), config.width("hidden")) == (128, 24, 256)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"deter": 100}, "deter must be a multiple of 8"),
        ({"bins": 254}, "bins must be odd"),
        ({"depth": 5}, "depth must be even"),
        ({"classes": 257}, "less than or equal to 256"),
        ({"size": "2m"}, "'1m', '12m'"),
        ({"learning_rte": 1e-3}, "Extra inputs are not permitted"),
        ({"loss_scales": {"reward": 1}}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_hyperparameter_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Hyperparameters(**wrong)


def test_the_paper_s_hyperparameters_are_the_defaults() -> None:
    c = Hyperparameters()
    assert (c.batch_size, c.batch_length, c.replay_context) == (16, 64, 1)
    assert (c.horizon, c.imagination_length, c.lam, c.entropy) == (333, 15, 0.95, 3e-4)
    assert (c.learning_rate, c.warmup, c.clip, c.beta1, c.beta2, c.eps) == (4e-5, 1000, 0.3, 0.9, 0.999, 1e-20)
    assert (c.unimix, c.actor_unimix, c.free_nats, c.bins) == (0.01, 0.01, 1.0, 255)
    assert (c.return_rate, c.slow_rate, c.slow_regulariser) == (0.01, 0.02, 1.0)
    assert (c.encoder_layers, c.decoder_layers) == (3, 3)
    assert (c.reward_layers, c.continue_layers, c.actor_layers, c.critic_layers) == (1, 1, 3, 3)
    assert c.reward_gradient and c.replay_value_gradient and c.imagination_starts is None
    assert c.loss_scales.model_dump() == {
        "rec": 1.0, "rew": 1.0, "con": 1.0, "dyn": 1.0, "rep": 0.1, "policy": 1.0, "value": 1.0, "repval": 0.3
    }  # fmt: skip


def test_heads_start_with_the_paper_s_output_scales(make_agent: Callable[..., DreamerV3]) -> None:
    agent = make_agent(units=64)
    assert agent.critic.out is not None and agent.model.reward.out is not None
    assert agent.actor.mlp.out is not None and agent.model.cont.out is not None
    assert not agent.critic.out.weight.any() and not agent.model.reward.out.weight.any()
    assert agent.actor.mlp.out.weight.std().item() == pytest.approx(0.01 / 8, rel=0.2)
    assert agent.model.cont.out.weight.std().item() == pytest.approx(1 / 8, rel=0.3)
    for fast, slow in zip(agent.critic.parameters(), agent.slow_critic.parameters(), strict=True):
        assert torch.equal(fast, slow)

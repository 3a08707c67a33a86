"""Images of any size and channel count: scaled once, padded for the network, compared on their true pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]


def image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


SHAPES = {
    "square": {"image": image(32, 32, 3)},
    "odd grey": {"image": image(37, 53, 1)},
    "tiny": {"image": image(7, 5, 4)},
    "two": {"b": image(20, 33, 3), "a": image(33, 18, 1), "vector": spaces.Box(-1, 1, (3,), np.float32)},
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_any_size_is_served(name: str, make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(SHAPES[name])
    batch = make_rows(agent, batch=2, length=5)
    for _ in range(2):
        metrics, _ = agent.update(batch)
    assert all(torch.isfinite(v).all() for v in metrics.values()) and agent.optimiser.nonfinite == 0
    state, latents = agent.model.observe(
        {k: batch[k] for k in agent.obs_space},
        {"action": batch["action"]},
        batch["is_first"],
        agent.model.initial_state(2),
    )
    predicted = agent.model.predict(latents)
    for key, space in SHAPES[name].items():
        assert predicted[key].shape == (2, 5, *space.shape)
        assert predicted[key].numpy().dtype == space.dtype
    assert state["deter"].shape == (2, 32)


def test_sides_are_padded_to_multiples_of_16(make_agent: Make) -> None:
    for name, padded in {"square": (32, 32), "odd grey": (48, 64), "tiny": (16, 16), "two": (48, 48)}.items():
        agent = make_agent(SHAPES[name])
        assert agent.model.encoder.images.padded == padded
        tokens = 4 * 2 * padded[0] * padded[1] // 256 + (8 if name == "two" else 0)
        assert agent.model.encoder.tokens == tokens


def test_pixels_are_scaled_to_half_around_zero_once(make_agent: Make) -> None:
    layout = make_agent({"image": image(7, 5, 3)}).model.encoder.images
    pixels = torch.arange(7 * 5 * 3, dtype=torch.uint8).view(1, 7, 5, 3) + 150
    stacked = layout.stack({"image": pixels}, torch.float32)
    assert stacked.shape == (1, 3, 16, 16)
    torch.testing.assert_close(stacked[0, :, :7, :5].permute(1, 2, 0), pixels[0].float() / 255 - 0.5)
    assert not stacked[0, :, 7:].any() and not stacked[0, :, :, 5:].any()
    extremes = layout.stack(
        {"image": torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 7, 5, 3)}, torch.float32
    )
    assert (extremes[0].min().item(), extremes[1].max().item()) == (-0.5, 0.5)


def test_split_gives_back_what_stack_put_together(make_agent: Make) -> None:
    space = SHAPES["two"]
    layout = make_agent(space).model.encoder.images
    rng = np.random.default_rng(0)
    obs = {k: torch.from_numpy(rng.integers(256, size=(4, *space[k].shape), dtype=np.uint8)) for k in ("a", "b")}
    stacked = layout.stack(obs, torch.float32)
    assert stacked.shape == (4, 4, 48, 48)
    for key, pixels in layout.split(stacked).items():
        torch.testing.assert_close((pixels + 0.5) * 255, obs[key].float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["odd grey", "two"])
def test_the_loss_is_the_squared_error_summed_over_the_true_pixels(name: str, make_agent: Make) -> None:
    agent = make_agent(SHAPES[name])
    decoder = agent.model.decoder
    with torch.no_grad():  # a decoder that says 0.5 everywhere, except in the padding, which must not count
        decoder.out.weight.zero_()
        assert decoder.out.bias is not None
        decoder.out.bias.zero_()
    rng = np.random.default_rng(1)
    obs = {
        k: torch.from_numpy(rng.integers(256, size=(3, *s.shape), dtype=np.uint8))
        for k, s in SHAPES[name].items()
        if k != "vector"
    }
    losses = decoder.losses(torch.randn(3, agent.model.features), obs | {"vector": torch.zeros(3, 3)})
    for key, pixels in obs.items():
        expected = (pixels.double() / 255 - 0.5).square().sum((1, 2, 3))
        torch.testing.assert_close(losses[key].double(), expected, rtol=1e-5, atol=1e-5)


def test_float_pixels_in_the_shape_of_an_image_are_refused(make_agent: Make) -> None:
    with pytest.raises(ValueError, match=r"Observation 'image' .* uint8 images"):
        make_agent({"image": spaces.Box(0, 1, (16, 16, 3), np.float32)})


def picture(height: int, width: int) -> Tensor:
    """No symmetry: red grows downward, green to the right, and one corner is blue."""
    pixels = torch.zeros(height, width, 3)
    pixels[..., 0] = torch.linspace(0, 255, height)[:, None]
    pixels[..., 1] = torch.linspace(0, 255, width)
    pixels[: height // 4, -width // 4 :, 2] = 255
    return pixels.to(torch.uint8)


def test_a_picture_comes_out_the_right_way_round(make_agent: Make, make_rows: MakeRows) -> None:
    """Two pictures, one for each value of a bit, so that the decoder has to read the latents and not its biases."""
    agent = make_agent(
        {"image": image(24, 40, 3)},
        depth=4,
        units=32,
        learning_rate=3e-3,
        warmup=0,
        imagination_length=1,
        imagination_starts=2,
    )
    rng = np.random.default_rng(0)
    pictures = torch.stack([picture(24, 40), 255 - picture(24, 40)])
    batch = make_rows(agent, batch=4, length=4, ends=False)
    for _ in range(120):
        which = torch.from_numpy(rng.integers(2, size=(4, 4)))
        metrics, _ = agent.update(batch | {"image": pictures[which]})
    assert metrics["loss/rec/image"] < 0.02 * 24 * 40 * 3
    which = torch.tensor([[0, 1, 1, 0]])
    action = {"action": torch.zeros(1, 4, dtype=torch.int32)}
    first = torch.zeros(1, 4, dtype=torch.bool)
    seeded = torch.Generator().manual_seed(0)
    _, latents = agent.model.observe({"image": pictures[which]}, action, first, agent.model.initial_state(1), seeded)
    predicted = agent.model.predict(latents)["image"].float()
    truth = pictures[which].float()
    error = (predicted - truth).abs().mean()
    for wrong in (truth.flip(2), truth.flip(3), truth.flip(4), 255 - truth):
        assert error < 0.4 * (predicted - wrong).abs().mean()
    assert error < 30


# ---- report ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SHAPES))
def test_report_shows_truth_model_and_error(name: str, make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(SHAPES[name])
    batch = make_rows(agent, batch=8, length=9)
    before = agent.state_dict()
    report = agent.report(batch)
    for key, space in SHAPES[name].items():
        for half in ("observed", "imagined"):
            assert report[f"openloop/{key}/{half}"].shape == ()
            assert torch.isfinite(report[f"openloop/{key}/{half}"])
        if len(space.shape) < 3:
            assert f"openloop/{key}" not in report
            continue
        height, width, channels = space.shape
        video = report[f"openloop/{key}"]
        assert video.dtype == torch.uint8
        assert video.shape == (8, 3 * height + 4, 6 * (width + 4), 3)
        assert torch.equal(video[0, 0, 0], torch.tensor([0, 200, 0], dtype=torch.uint8))
        assert torch.equal(video[-1, 0, 0], torch.tensor([220, 0, 0], dtype=torch.uint8))
        truth = batch[key][:6, 1:]
        truth = (
            truth.expand(*truth.shape[:-1], 3)
            if channels == 1
            else truth[..., :1].expand(*truth.shape[:-1], 3)
            if channels != 3
            else truth
        )
        for n in range(6):
            left = n * (width + 4) + 2
            assert torch.equal(video[:, 2 : 2 + height, left : left + width], truth[n])
    after = agent.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k != "generator/update")

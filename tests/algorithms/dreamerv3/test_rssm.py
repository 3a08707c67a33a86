"""The recurrent model against an independent one that repeats its inputs to eight blocks, as the paper describes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from oneiros.algorithms.dreamerv3.rssm import RSSM, BlockGRU, Latents
from torch import nn

D, HIDDEN, GROUPS, CLASSES, TOKENS, ACTION = 48, 8, 6, 4, 10, 3
STOCH = GROUPS * CLASSES


def array(x: torch.Tensor | None) -> np.ndarray:
    assert x is not None
    return x.detach().double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def norm_silu(x: np.ndarray, scale: torch.Tensor) -> np.ndarray:
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * array(scale)
    return y * sigmoid(y)


def block(module: nn.Module, x: np.ndarray) -> np.ndarray:
    linear, norm = module.linear, module.norm
    return norm_silu(x @ array(linear.weight).T + array(linear.bias), norm.scale)  # type: ignore[union-attr, arg-type]


def paper_gru(gru: BlockGRU, deter: np.ndarray, stoch: np.ndarray, action: np.ndarray) -> np.ndarray:
    """One step in float64. The weight of the hidden layer is put together from its two parts."""
    n, g = len(deter), 8
    action = action / np.maximum(1, np.abs(action))
    inputs = np.concatenate(
        [block(gru.from_deter, deter), block(gru.from_stoch, stoch), block(gru.from_action, action)], -1
    )
    repeated = np.repeat(inputs[:, None], g, 1)
    x = np.concatenate([deter.reshape(n, g, -1), repeated], -1)
    columns = array(gru.hidden_inputs.weight).reshape(g, D // g, 3 * HIDDEN).transpose(0, 2, 1)
    kernel = np.concatenate([array(gru.hidden_deter.weight), columns], 1)
    assert kernel.shape == (8, D // 8 + 3 * HIDDEN, D // 8)
    x = np.einsum("ngi,gio->ngo", x, kernel).reshape(n, D) + array(gru.hidden_inputs.bias)
    x = norm_silu(x, gru.hidden_norm.scale)
    gates = np.einsum("ngi,gio->ngo", x.reshape(n, g, -1), array(gru.gates.weight))
    gates = gates + array(gru.gates.bias).reshape(g, -1)
    reset, candidate, update = (part.reshape(n, D) for part in np.split(gates, 3, -1))
    candidate = np.tanh(sigmoid(reset) * candidate)
    update = sigmoid(update - 1)
    return update * candidate + (1 - update) * deter


@pytest.fixture
def rssm() -> RSSM:
    torch.manual_seed(0)
    model = RSSM(D, HIDDEN, GROUPS, CLASSES, TOKENS, ACTION)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param), alpha=0.3)
    return model


def one_hots(n: int, seed: int = 1) -> torch.Tensor:
    index = torch.randint(CLASSES, (n, GROUPS), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(index, CLASSES).float().transpose(1, 2).reshape(n, STOCH)


def test_the_recurrent_step_is_the_paper_s(rssm: RSSM) -> None:
    generator = torch.Generator().manual_seed(2)
    deter = torch.rand(5, D, generator=generator) * 2 - 1
    action = torch.randn(5, ACTION, generator=generator) * 3
    ours = rssm.gru(deter, one_hots(5), rssm.gru.embed_action(action))
    expected = paper_gru(rssm.gru, array(deter), array(one_hots(5)), array(action))
    np.testing.assert_allclose(array(ours), expected, atol=1e-5)
    assert np.abs(expected - array(deter)).mean() > 0.1, "the step must move the state"


def test_three_steps_from_zero(rssm: RSSM) -> None:
    ours, expected = torch.zeros(2, D), np.zeros((2, D))
    for step in range(3):
        action = torch.full((2, ACTION), 0.5 * step)
        ours = rssm.gru(ours, one_hots(2, step), rssm.gru.embed_action(action))
        expected = paper_gru(rssm.gru, expected, array(one_hots(2, step)), array(action))
    np.testing.assert_allclose(array(ours), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ((0.0, 0.0, 0.0), (1 - sigmoid(np.array(-1.0))) * 0.5),  # a fresh GRU keeps 73 % of its state
        ((0.0, 0.0, 1e4), 0.0),  # update open: the candidate, which is tanh(0)
        ((0.0, 0.0, -1e4), 0.5),  # update shut: the state stays
        ((1e4, 1e4, 1e4), 1.0),  # reset open lets the candidate through
        ((-1e4, 1e2, 1e4), 0.0),  # reset shut holds it at zero
    ],
)
def test_each_gate_does_what_its_name_says(rssm: RSSM, gate: tuple[float, float, float], expected: float) -> None:
    """``gate``: the biases of reset, candidate and update, with no weight on anything else."""
    with torch.no_grad():
        rssm.gru.gates.weight.zero_()
        assert rssm.gru.gates.bias is not None
        rssm.gru.gates.bias.copy_(torch.tensor(gate).repeat_interleave(D // 8).repeat(8))
    out = rssm.gru(torch.full((1, D), 0.5), one_hots(1), rssm.gru.embed_action(torch.zeros(1, ACTION)))
    np.testing.assert_allclose(array(out), np.full((1, D), expected), atol=1e-6)


def test_blocks_of_the_gates_are_independent(rssm: RSSM) -> None:
    """The state of one block reaches the gates of the others only over the shared projection of the whole state."""
    with torch.no_grad():
        rssm.gru.from_deter.linear.weight.zero_()
        rssm.gru.hidden_norm.scale.zero_()  # and over the norm, which spans all blocks
        rssm.gru.hidden_norm.scale.add_(1e-3)
    deter = torch.zeros(1, D, requires_grad=True)
    embedded = rssm.gru.embed_action(torch.zeros(1, ACTION))
    out = rssm.gru(deter, one_hots(1), embedded)
    (grad,) = torch.autograd.grad(out[0, : D // 8].sum(), deter)
    assert grad[0, : D // 8].abs().min() > 0.1
    assert grad[0, D // 8 :].abs().max() < 1e-2


def test_large_actions_are_scaled_to_one_without_a_gradient_through_the_scale(rssm: RSSM) -> None:
    action = torch.tensor([[0.5, -3.0, 8.0]], requires_grad=True)
    same = torch.tensor([[0.5, -1.0, 1.0]], requires_grad=True)
    out, expected = rssm.gru.embed_action(action), rssm.gru.embed_action(same)
    torch.testing.assert_close(out, expected)
    (grad,) = torch.autograd.grad(out.square().sum(), action)
    (plain,) = torch.autograd.grad(expected.square().sum(), same)
    torch.testing.assert_close(grad, plain / torch.tensor([[1.0, 3.0, 8.0]]))


def test_initial_weights_of_the_split_layers_count_the_inputs_of_the_whole() -> None:
    torch.manual_seed(0)
    model = RSSM(512, 64, 32, 4, 64, 6)
    whole = 512 + 8 * 3 * 64
    for weight, fan_in in [
        (model.gru.hidden_deter.weight, whole),
        (model.gru.hidden_inputs.weight, whole),
        (model.gru.gates.weight, 512),
        (model.post_deter.weight, 512 + 64),
        (model.post_tokens.weight, 512 + 64),
    ]:
        assert weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.05)


# ---- posterior, prior, sequences -------------------------------------------------------------------------------------


def paper_posterior(rssm: RSSM, deter: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    kernel = np.concatenate([array(rssm.post_deter.weight), array(rssm.post_tokens.weight)], 1)
    x = np.concatenate([deter, tokens], -1) @ kernel.T + array(rssm.post_tokens.bias)
    return norm_silu(x, rssm.post_norm.scale) @ array(rssm.post_logits.weight).T + array(rssm.post_logits.bias)


def paper_sample(rssm: RSSM, logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    logits = logits.reshape(-1, CLASSES, GROUPS)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs = 0.99 * probs / probs.sum(1, keepdims=True) + 0.01 / CLASSES
    index = (probs.cumsum(1) <= uniform[:, None]).sum(1).clip(max=CLASSES - 1)
    return np.eye(CLASSES)[index].transpose(0, 2, 1).reshape(-1, STOCH)


def inputs(steps: int = 6, n: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(steps, n, TOKENS, generator=generator)
    action = torch.randn(steps, n, ACTION, generator=generator)
    is_first = torch.rand(steps, n, generator=generator) < 0.3
    return tokens, action, is_first, torch.rand(steps, n, GROUPS, generator=generator)


def test_filtering_a_sequence_with_resets_step_by_step(rssm: RSSM) -> None:
    tokens, action, is_first, uniform = inputs()
    assert is_first[1:].any() and not is_first.all()
    generator = torch.Generator().manual_seed(4)
    start = Latents(torch.rand(4, D, generator=generator), one_hots(4))
    latents, logits = rssm.observe(tokens, action, is_first, start, uniform)

    deter, stoch = array(start.deter), array(start.stoch)
    for t in range(6):
        keep = 1.0 - array(is_first[t])[:, None]
        deter = paper_gru(rssm.gru, deter * keep, stoch * keep, array(action[t]) * keep)
        expected_logits = paper_posterior(rssm, deter, array(tokens[t]))
        stoch = paper_sample(rssm, expected_logits, array(uniform[t]))
        np.testing.assert_allclose(array(latents.deter[t]), deter, atol=1e-4)
        np.testing.assert_allclose(array(logits[t]), expected_logits, atol=1e-4)
        np.testing.assert_array_equal(array(latents.stoch[t]), stoch)


def test_imagining_uses_the_prior_of_the_next_state(rssm: RSSM) -> None:
    _, action, _, uniform = inputs()
    generator = torch.Generator().manual_seed(5)
    start = torch.rand(4, D, generator=generator)
    deter, stoch = rssm.imagine_step(start, one_hots(4), action[0], uniform[0])
    expected = paper_gru(rssm.gru, array(start), array(one_hots(4)), array(action[0]))
    x = expected
    for layer in rssm.prior_net.blocks:
        x = block(layer, x)
    assert len(rssm.prior_net.blocks) == 2 and rssm.prior_net.out is not None
    logits = x @ array(rssm.prior_net.out.weight).T + array(rssm.prior_net.out.bias)
    np.testing.assert_allclose(array(deter), expected, atol=1e-4)
    np.testing.assert_array_equal(array(stoch), paper_sample(rssm, logits, array(uniform[0])))


def test_what_came_before_is_first_has_no_influence_at_all(rssm: RSSM) -> None:
    tokens, action, _, uniform = inputs()
    is_first = torch.zeros(6, 4, dtype=torch.bool)
    is_first[3] = True
    outs = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        history, acts = tokens.clone(), action.clone()
        history[:3] = torch.randn(3, 4, TOKENS, generator=generator)
        acts[:4] = torch.randn(4, 4, ACTION, generator=generator)  # the action before the reset counts as none, too
        start = Latents(torch.rand(4, D, generator=generator), one_hots(4, seed))
        outs.append(rssm.observe(history, acts, is_first, start, uniform))
    (first, first_logits), (second, second_logits) = outs
    assert not torch.equal(first.deter[2], second.deter[2])
    assert torch.equal(first.deter[3:], second.deter[3:])
    assert torch.equal(first.stoch[3:], second.stoch[3:])
    assert torch.equal(first_logits[3:], second_logits[3:])


def test_no_gradient_crosses_is_first(rssm: RSSM) -> None:
    tokens, action, _, uniform = inputs()
    is_first = torch.zeros(6, 4, dtype=torch.bool)
    is_first[3] = True
    tokens.requires_grad_()
    latents, _ = rssm.observe(tokens, action, is_first, Latents(torch.zeros(4, D), torch.zeros(4, STOCH)), uniform)
    (grad,) = torch.autograd.grad(latents.feat[3:].square().sum(), tokens)
    assert not grad[:3].any()
    assert grad[3:].abs().max() > 1e-4


def test_straight_through_samples_carry_gradient_to_the_logits(rssm: RSSM) -> None:
    tokens, action, is_first, uniform = inputs(steps=1)
    tokens.requires_grad_()
    latents, _ = rssm.observe(tokens, action, is_first, Latents(torch.zeros(4, D), torch.zeros(4, STOCH)), uniform)
    weights = torch.randn(STOCH, generator=torch.Generator().manual_seed(6))
    (grad,) = torch.autograd.grad((latents.stoch * weights).sum(), tokens)
    assert grad.abs().max() > 1e-3
    assert set(latents.stoch.unique().tolist()) == {0.0, 1.0}


def test_packed_latents_unpack_to_the_same(rssm: RSSM) -> None:
    stoch = one_hots(7)
    packed = rssm.pack(stoch)
    assert packed.dtype == torch.uint8 and packed.shape == (7, GROUPS)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(rssm.unpack(packed, dtype), stoch.to(dtype))
    assert torch.equal(rssm.pack(stoch.view(7, 1, STOCH)), packed[:, None])


def test_every_one_of_256_classes_survives_packing() -> None:
    model = RSSM(8, 4, 2, 256, 4, 1)
    index = torch.stack([torch.arange(256), torch.arange(256).flip(0)], -1).to(torch.uint8)
    assert torch.equal(model.pack(model.unpack(index, torch.float32)), index)


def test_deter_must_divide_into_blocks() -> None:
    with pytest.raises(ValueError, match="deter=20 must be a multiple of the 8 blocks"):
        BlockGRU(20, 8, 2, 4)


def test_the_initial_state_is_zero(make_agent: Callable[..., DreamerV3]) -> None:
    state = make_agent(action={"action": spaces.Discrete(3)}).initial_state(5)
    assert {k: tuple(v.shape) for k, v in state.items()} == {"deter": (5, 32), "stoch": (5, 16), "action": (5, 3)}
    assert not any(v.any() for v in state.values())

"""Actions, observations, rewards and latents of one row belong together: off by one, nothing here can be learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.contract import SIGNAL
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor

Make = Callable[..., DreamerV3]
PAID = torch.tensor([-1.0, 0.0, 1.0])
"""What the three actions pay; each is also seen as itself in the next observation."""


def echo_rows(rng: np.random.Generator, late: int = 0, batch: int = 8, length: int = 9) -> dict[str, Tensor]:
    """Rows whose observation and reward at ``t + 1`` are the action at ``t``, recorded ``late`` rows late."""
    action = torch.from_numpy(rng.integers(3, size=(batch, length + 3)))
    arrived = action[:, 1 : 1 + length]
    executed = action[:, 2 - late : 2 - late + length]
    false = torch.zeros(batch, length, dtype=torch.bool)
    return {
        "obs": torch.nn.functional.one_hot(arrived, 3).float(),
        "action": executed.int(),
        "reward": PAID[arrived],
        "is_first": false,
        "is_last": false,
        "is_terminal": false,
        "latent/deter": torch.zeros(batch, length, 32, dtype=torch.float16),
        "latent/stoch": torch.zeros(batch, length, 8, dtype=torch.uint8),
    }


def follow_the_action(make_agent: Make, late: int) -> tuple[float, float]:
    """Train on echoes and imagine one step under every action.

    Returns the share of imagined observations that are the action imagined under, and the mean error of the reward.
    """
    agent = make_agent(
        {"obs": spaces.Box(0, 1, (3,), np.float32)},
        groups=8,
        units=16,
        hidden=16,
        learning_rate=3e-3,
        warmup=0,
        imagination_length=1,
        imagination_starts=2,
    )
    rng = np.random.default_rng(0)
    for _ in range(200):
        agent.update(echo_rows(rng, late))
    rows = echo_rows(rng, late, batch=66)
    previous = {"action": torch.cat([torch.zeros(66, 1, dtype=torch.int32), rows["action"][:, :-1]], 1)}
    start = {"deter": torch.zeros(66, 32), "stoch": torch.zeros(66, 32)}
    generator = torch.Generator().manual_seed(0)
    state, _ = agent.model.observe({"obs": rows["obs"]}, previous, rows["is_first"], start, generator)
    under = torch.arange(66) % 3
    _, ahead = agent.model.imagine(state, {"action": under[:, None].int()}, generator)
    predicted = agent.model.predict(ahead)
    followed = (predicted["obs"][:, 0].argmax(-1) == under).float().mean().item()
    return followed, (predicted["reward"][:, 0] - PAID[under]).abs().mean().item()


def test_the_next_observation_and_reward_follow_from_the_action(make_agent: Make) -> None:
    followed, error = follow_the_action(make_agent, late=0)
    assert followed > 0.95 and error < 0.2


@pytest.mark.parametrize("late", [-1, 1])
def test_actions_recorded_one_row_off_have_no_effect_that_could_be_learned(late: int, make_agent: Make) -> None:
    followed, error = follow_the_action(make_agent, late)
    assert followed < 0.6 and error > 0.5


# ---- what a sequence starts from -------------------------------------------------------------------------------------


def decided(agent: DreamerV3) -> None:
    """Make every posterior certain, so that acting and training need no common noise to agree."""
    with torch.no_grad():
        agent.weights.flat.add_(
            torch.randn(agent.weights.flat.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3
        )
        agent.model.rssm.post_logits.weight.mul_(1000)


def live(agent: DreamerV3, steps: int, n: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """Rows ``(n, steps, ...)`` as an env runner would record them: acting, episode ends, stored latents."""
    rng = np.random.default_rng(seed)
    state = agent.initial_state(n)
    recorded: list[dict[str, Tensor]] = []
    is_first = torch.ones(n, dtype=torch.bool)
    for step in range(steps):
        obs = {
            k: torch.tensor(rng.uniform(-2, 2, (n, *s.shape)), dtype=torch.float32) for k, s in agent.obs_space.items()
        }
        is_last = torch.tensor([step % (3 + i % 4) == 2 + i % 4 for i in range(n)])
        action, state, latents = agent.act(obs, is_first, state)
        # Nothing is executed at the end of an episode; the state remembers an action all the same.
        stored = {
            k: torch.where(is_last.view(-1, *[1] * (v.ndim - 1)), torch.zeros_like(v), v) for k, v in action.items()
        }
        row = obs | stored | {f"latent/{k}": v for k, v in latents.items()}
        row |= {"is_first": is_first, "is_last": is_last, "is_terminal": is_last & (torch.arange(n) % 2 == 0)}
        recorded.append(row | {"reward": torch.tensor(rng.normal(size=n), dtype=torch.float32)})
        is_first = is_last
    rows = {k: torch.stack([r[k] for r in recorded], 1) for k in recorded[0]}
    assert rows["is_first"][:, 1:].any(1).all()
    return rows


SPACES = {
    "discrete": {"action": spaces.Discrete(7)},
    "continuous": {"action": spaces.Box(-1, 1, (2,), np.float32)},
    "both": {"action/a": spaces.MultiDiscrete([2, 3]), "action/b": spaces.Box(-1, 1, (), np.float32)},
}


def rows_refreshed_to_what_was_stored(agent: DreamerV3, rows: dict[str, Tensor]) -> float:
    """The share of trained rows where an update filters to the latents that acting stored."""
    _, refreshed = agent.update(rows)
    same = (refreshed["stoch"] == rows["latent/stoch"][:, 1:]).all(-1)
    near = (refreshed["deter"].float() - rows["latent/deter"][:, 1:].float()).abs().amax(-1) < 4e-3
    return (same & near).float().mean().item()


@pytest.mark.parametrize("kind", list(SPACES))
@pytest.mark.parametrize("begin", [0, 4])
def test_training_passes_through_the_states_that_acting_stored(kind: str, begin: int, make_agent: Make) -> None:
    """Filtered again from the context row's stored latent, a sequence passes through the same states.

    A few rows may differ: half-precision rounding of the start decides a tie the other way.
    """
    agent = make_agent(action=SPACES[kind], unimix=1e-6, warmup=10**9)
    decided(agent)
    rows = {k: v[:, begin : begin + 9] for k, v in live(agent, 14, n=16).items()}
    assert rows["latent/deter"].float().std() > 0.1 and len(rows["latent/stoch"].unique()) > 1
    assert rows_refreshed_to_what_was_stored(agent, rows) > 0.9
    # And nothing else does: the same rows with one thing out of place.
    for key in (*agent.action_space, "obs"):
        assert rows_refreshed_to_what_was_stored(agent, rows | {key: rows[key].roll(1, 1)}) < 0.7, key
    late = rows | {"is_first": rows["is_first"].roll(1, 1)}
    assert rows_refreshed_to_what_was_stored(agent, late) < 0.7


def test_refreshed_latents_have_the_stored_shapes_and_dtypes(make_agent: Make, make_rows: Callable[..., dict]) -> None:
    agent = make_agent()
    for precision in ("float32", "bfloat16"):
        agent = make_agent(precision=precision)
        _, refreshed = agent.update(make_rows(agent, batch=3, length=7))
        assert refreshed.pop(SIGNAL).shape == (3,)
        assert refreshed.keys() == agent.latent_fields.keys()
        for key, field in agent.latent_fields.items():
            assert refreshed[key].shape == (3, 6, *field.shape)
            assert refreshed[key].numpy().dtype == field.dtype
            assert not refreshed[key].requires_grad


def test_acting_returns_the_declared_latents(make_agent: Make) -> None:
    agent = make_agent()
    obs, first = {"obs": torch.zeros(5, 5)}, torch.ones(5, dtype=torch.bool)
    _, _, latents = agent.act(obs, first, agent.initial_state(5))
    assert {k: (tuple(v.shape), v.numpy().dtype) for k, v in latents.items()} == {
        k: ((5, *f.shape), f.dtype) for k, f in agent.latent_fields.items()
    }


def test_a_stored_start_equals_the_state_carried_through(make_agent: Make) -> None:
    """Filtering rows 5.. from row 4's latents is filtering all rows: bit for bit, given the noise."""
    agent = make_agent()
    rssm = agent.model.rssm
    from oneiros.algorithms.dreamerv3.rssm import Latents

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(10, 4, agent.model.encoder.tokens, generator=generator)
    action, uniform = torch.randn(10, 4, 3, generator=generator), torch.rand(10, 4, 4, generator=generator)
    is_first = torch.zeros(10, 4, dtype=torch.bool)
    zero = Latents(torch.zeros(4, 32), torch.zeros(4, 16))
    whole, whole_logits = rssm.observe(tokens, action, is_first, zero, uniform)
    start = Latents(whole.deter[4], rssm.unpack(rssm.pack(whole.stoch[4]), torch.float32))
    rest, logits = rssm.observe(tokens[5:], action[5:], is_first[5:], start, uniform[5:])
    torch.testing.assert_close(rest.deter, whole.deter[5:])
    assert torch.equal(rest.stoch, whole.stoch[5:])
    torch.testing.assert_close(logits, whole_logits[5:])


def test_preparing_a_batch_pairs_each_row_with_the_action_before_it(
    make_agent: Make, make_rows: Callable[..., dict]
) -> None:
    agent = make_agent()
    batch = make_rows(agent, batch=3, length=7)
    rows = agent.prepare(batch)
    one_hot = torch.nn.functional.one_hot(batch["action"].long(), 3).float()
    for t in range(6):
        assert torch.equal(rows["prev_action"][t], one_hot[:, t])
        assert torch.equal(rows["obs"].view(6, 3, 5)[t], batch["obs"][:, t + 1])
        for key in ("reward", "is_last", "is_terminal"):
            assert torch.equal(rows[key].view(6, 3)[t], batch[key][:, t + 1].float())
        assert torch.equal(rows["is_first"][t], batch["is_first"][:, t + 1])
    assert torch.equal(rows["deter"], batch["latent/deter"][:, 0].float())
    assert torch.equal(agent.model.rssm.pack(rows["stoch"]), batch["latent/stoch"][:, 0])


def test_without_context_a_sequence_starts_from_nothing(make_agent: Make, make_rows: Callable[..., dict]) -> None:
    agent = make_agent(replay_context=0)
    batch = make_rows(agent, batch=3, length=7)
    rows = agent.prepare(batch)
    assert rows["prev_action"].shape == (7, 3, 3)
    assert not rows["prev_action"][0].any() and not rows["deter"].any() and not rows["stoch"].any()
    assert torch.equal(rows["prev_action"][1:].argmax(-1).t(), batch["action"][:, :-1].long())
    _, refreshed = agent.update(batch)
    assert refreshed["deter"].shape == (3, 7, 32)


def test_latents_that_are_not_valid_count_as_none(make_agent: Make, make_rows: Callable[..., dict]) -> None:
    agent = make_agent()
    valid = torch.tensor([True, False, True])
    rows = agent.prepare(make_rows(agent, batch=3) | {"latent_valid": valid})
    assert not rows["deter"][1].any() and not rows["stoch"][1].any()
    assert rows["deter"][valid].any(1).all() and rows["stoch"][valid].any(1).all()


@pytest.mark.parametrize("what", ["obs", "action", "latent/deter", "latent/stoch"])
def test_an_update_forgets_what_came_before_is_first(
    what: str, make_agent: Make, make_rows: Callable[..., dict]
) -> None:
    refreshed = []
    for change in (False, True):
        agent = make_agent()
        rows = make_rows(agent, ends=False)
        rows["is_first"][:, 4] = True
        if change:
            rows[what][:, :4] = (rows[what][:, :4] + 1) % 3
        refreshed.append(agent.update(rows)[1])
    for key in ("deter", "stoch"):
        assert torch.equal(refreshed[0][key][:, 3:], refreshed[1][key][:, 3:])
    assert not torch.equal(refreshed[0]["deter"][:, :3], refreshed[1]["deter"][:, :3])


def test_acting_forgets_what_came_before_is_first(make_agent: Make) -> None:
    results = []
    for seed in (0, 1):
        agent = make_agent()
        generator = torch.Generator().manual_seed(seed)
        state = {k: torch.rand(v.shape, generator=generator) for k, v in agent.initial_state(6).items()}
        is_first = torch.tensor([True, False, True, False, True, False])
        obs = {"obs": torch.linspace(-1, 1, 30).view(6, 5)}
        results.append(agent.act(obs, is_first, state))
    (a0, s0, l0), (a1, s1, l1) = results
    for left, right in ((a0, a1), (s0, s1), (l0, l1)):
        assert all(torch.equal(left[k][::2], right[k][::2]) for k in left)
    assert not torch.equal(s0["deter"][1::2], s1["deter"][1::2])


def test_acting_remembers_the_action_that_was_executed(make_agent: Make) -> None:
    """The state carries the action as the environment got it: clipped."""
    agent = make_agent(action={"action": spaces.Box(-1, 1, (2,), np.float32)})
    obs, first = {"obs": torch.zeros(500, 5)}, torch.ones(500, dtype=torch.bool)
    action, state, _ = agent.act(obs, first, agent.initial_state(500))
    assert torch.equal(state["action"], action["action"])
    assert action["action"].abs().max() == 1.0

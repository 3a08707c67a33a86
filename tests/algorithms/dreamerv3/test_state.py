"""What is saved is everything: training goes on bit for bit, and a policy acts alike wherever it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor

Make = Callable[..., DreamerV3]
MakeRows = Callable[..., dict[str, Tensor]]
FAST: dict[str, Any] = {"learning_rate": 1e-3, "warmup": 5}
ACTIONS = {"action/a": spaces.Discrete(3), "action/b": spaces.Box(-1, 1, (2,))}


def act(agent: DreamerV3, steps: int = 4, mode: Any = "train", seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state, first, seen = agent.initial_state(6), torch.ones(6, dtype=torch.bool), []
    for _ in range(steps):
        action, state, latents = agent.act({"obs": torch.randn(6, 5, generator=generator)}, first, state, mode)
        first = torch.rand(6, generator=generator) < 0.2
        seen += [*action.values(), *latents.values()]
    return seen


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_and_restored_training_is_uninterrupted_training(
    precision: str, make_agent: Make, make_rows: MakeRows
) -> None:
    whole = make_agent(action=ACTIONS, precision=precision, **FAST)
    for update in range(4):
        whole.update(make_rows(whole, seed=update))
        act(whole)
    saved = whole.state_dict()
    resumed = make_agent(action=ACTIONS, precision=precision, seed=99, **FAST)
    assert not same(saved, resumed.state_dict())
    resumed.load_state_dict(saved)
    assert same(saved, resumed.state_dict())
    for update in range(4, 8):
        (m1, l1), (m2, l2) = (agent.update(make_rows(whole, seed=update)) for agent in (whole, resumed))
        assert same(m1, m2) and same(l1, l2)
        assert all(torch.equal(a, b) for a, b in zip(act(whole), act(resumed), strict=True))
    assert same(whole.state_dict(), resumed.state_dict())
    assert whole.state_dict()["updates"].item() == 8


def test_a_saved_state_is_a_copy(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(warmup=0, learning_rate=1e-2)
    saved = agent.state_dict()
    kept = {k: v.clone() for k, v in saved.items()}
    agent.update(make_rows(agent))
    assert same(saved, kept) and not same(saved, agent.state_dict())
    resumed = make_agent()
    resumed.load_state_dict(saved)
    resumed.update(make_rows(agent))
    assert same(saved, kept)


def test_the_same_seed_gives_the_same_training_and_another_does_not(make_agent: Make, make_rows: MakeRows) -> None:
    states = []
    for seed in (3, 3, 4):
        agent = make_agent(seed=seed, **FAST)
        torch.rand(7)  # nor does the global generator matter
        for update in range(3):
            agent.update(make_rows(agent, seed=update))
        states.append(agent.state_dict())
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_building_an_agent_leaves_the_global_generator_alone(make_agent: Make) -> None:
    before = torch.get_rng_state()
    make_agent(seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_everything_that_an_update_changes_is_saved(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(warmup=0, learning_rate=1e-2)
    before = agent.state_dict()
    for update in range(3):
        agent.update(make_rows(agent, seed=update))
    after = agent.state_dict()
    still = {k for k in before if torch.equal(before[k], after[k])}
    assert still <= {"optimiser/nonfinite", "generator/act", "return_scale/low", "return_scale/high"}
    for part in (
        "model/",
        "actor/",
        "critic/",
        "slow_critic/",
        "optimiser/rms",
        "optimiser/momentum",
        "optimiser/step",
    ):
        assert any(k.startswith(part) for k in after), part


def test_the_normaliser_is_restored(make_agent: Make) -> None:
    agent = make_agent()
    agent.return_scale.update(torch.linspace(-1000, 3000, 100))
    resumed = make_agent()
    resumed.load_state_dict(agent.state_dict())
    assert resumed.return_scale.scale() == agent.return_scale.scale() > 30


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_policy_from_the_learner_s_weights_acts_as_the_learner(
    mode: str, make_agent: Make, make_rows: MakeRows
) -> None:
    learner = make_agent(action=ACTIONS, warmup=0, learning_rate=1e-2)
    learner.update(make_rows(learner))
    policy = make_agent(action=ACTIONS, role="policy")
    fresh = act(make_agent(action=ACTIONS, role="policy"), mode=mode)
    policy.load_policy_state(learner.policy_state())
    expected = act(learner, mode=mode)
    assert all(torch.equal(a, b) for a, b in zip(act(policy, mode=mode), expected, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(fresh, expected, strict=True))


def test_a_policy_has_no_more_than_acting_needs(make_agent: Make) -> None:
    policy = make_agent(role="policy")
    weights = sum(p.numel() for module in (policy.model, policy.actor) for p in module.parameters())
    assert weights == policy.policy_size == policy.weights.flat.numel()
    assert not any(hasattr(owner, name) for owner, name in ((policy.model, "decoder"), (policy, "critic")))


def test_a_learner_of_bfloat16_broadcasts_its_float32_weights(make_agent: Make, make_rows: MakeRows) -> None:
    learner = make_agent(precision="bfloat16", warmup=0, learning_rate=1e-4)
    learner.update(make_rows(learner))
    policy = make_agent(role="policy", precision="bfloat16")
    policy.load_policy_state(learner.policy_state())
    assert all(torch.equal(a, b) for a, b in zip(act(policy), act(learner), strict=True))


def test_policy_weights_are_a_copy_and_only_what_acting_needs(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent(warmup=0, learning_rate=1e-2)
    state = agent.policy_state()
    kept = {k: v.clone() for k, v in state.items()}
    agent.update(make_rows(agent))
    assert same(state, kept)
    acting = sum(p.numel() for m in (agent.model.encoder, agent.model.rssm, agent.actor) for p in m.parameters())
    assert sum(v.numel() for v in state.values()) == acting < agent.weights.flat.numel()


def test_evaluation_takes_the_likeliest_action(make_agent: Make, roughen: Callable[..., None]) -> None:
    agent = make_agent()
    roughen(agent, scale=0.5)
    obs, first = {"obs": torch.zeros(200, 5)}, torch.ones(200, dtype=torch.bool)
    state = agent.initial_state(200)
    _, after, _ = agent.act(obs, first, state, "eval")
    params = agent.actor(torch.cat([after["deter"], after["stoch"]], -1))
    assert torch.equal(after["action"].argmax(-1), params.argmax(-1))
    sampled, _, _ = agent.act(obs, first, state, "train")
    assert len(sampled["action"].unique()) > 1


def test_weights_of_another_policy_are_refused(make_agent: Make) -> None:
    with pytest.raises(ValueError, match=r"These policy weights have \d+ numbers, but this policy has \d+"):
        make_agent().load_policy_state(make_agent(deter=64).policy_state())


def test_a_state_of_another_model_is_refused_by_name_and_changes_nothing(make_agent: Make) -> None:
    agent = make_agent()
    before = agent.state_dict()
    with pytest.raises(ValueError, match=r"'model/\S+' has shape \(.*\) in the checkpoint but \(.*\) in this model"):
        agent.load_state_dict(make_agent(deter=64).state_dict())
    without = {k: v for k, v in make_agent(seed=1).state_dict().items() if k != "optimiser/rms"}
    with pytest.raises(ValueError, match="The checkpoint has no 'optimiser/rms'"):
        agent.load_state_dict(without)
    assert same(before, agent.state_dict())


def test_an_update_with_a_nan_leaves_the_weights_and_the_next_update_alone(
    make_agent: Make, make_rows: MakeRows
) -> None:
    agent = make_agent(warmup=0, learning_rate=1e-3)
    agent.update(make_rows(agent))
    before = agent.state_dict()
    poisoned = make_rows(agent, seed=1)
    poisoned["reward"][0, 3] = float("nan")
    agent.update(poisoned)
    after = agent.state_dict()
    for key in before:
        if key.startswith(("model/", "actor/", "critic/", "optimiser/rms", "optimiser/momentum")):
            assert torch.equal(before[key], after[key]), key
    assert after["optimiser/nonfinite"] == before["optimiser/nonfinite"] + 1
    metrics, _ = agent.update(make_rows(agent, seed=2))
    assert all(torch.isfinite(v).all() for v in metrics.values())
    assert not torch.equal(
        after["model/rssm.prior_net.out.weight"], agent.state_dict()["model/rssm.prior_net.out.weight"]
    )


def test_gradients_are_averaged_over_learners_before_clipping(make_agent: Make, make_rows: MakeRows) -> None:
    """Two learners that see one batch each step as one learner would on the mean of their gradients."""
    agents = [make_agent(warmup=0, learning_rate=1e-2) for _ in range(2)]
    seen: list[Tensor] = []
    agents[0].all_reduce = lambda grad: seen.append(grad.clone())
    agents[0].update(make_rows(agents[0]))
    agents[1].all_reduce = lambda grad: grad.mul_(0.5).add_(seen[0], alpha=0.5)
    agents[1].update(make_rows(agents[1]))
    assert seen[0].abs().sum() > 0
    assert same(agents[0].state_dict(), agents[1].state_dict())
    agents[0].all_reduce = lambda grad: grad.zero_()
    before = agents[0].state_dict()
    metrics, _ = agents[0].update(make_rows(agents[0]))
    assert metrics["grad_norm"] == 0
    assert before["optimiser/step"] + 1 == agents[0].state_dict()["optimiser/step"]


def test_an_update_on_a_nan_observation_leaves_no_trace(make_agent: Make, make_rows: MakeRows) -> None:
    """Nothing that later updates use may stay poisoned: not the normaliser, not the latents that go back to replay."""
    agent = make_agent(warmup=0, learning_rate=1e-3)
    agent.update(make_rows(agent))
    poisoned = make_rows(agent, seed=1)
    poisoned["obs"][0, 3, 2] = float("nan")
    _, refreshed = agent.update(poisoned)
    assert agent.optimiser.nonfinite == 1
    assert all(torch.isfinite(v).all() for v in agent.state_dict().values() if v.is_floating_point())
    assert torch.isfinite(refreshed["deter"]).all()
    metrics, _ = agent.update(make_rows(agent, seed=2))
    assert agent.optimiser.nonfinite == 1
    assert all(torch.isfinite(v).all() for v in metrics.values())


def test_a_reset_clears_a_poisoned_state(make_agent: Make, make_rows: MakeRows) -> None:
    agent = make_agent()
    rows = make_rows(agent, ends=False)
    rows["latent/deter"][1, 0] = float("nan")
    rows["is_first"][1, 3] = True
    _, refreshed = agent.update(rows)
    assert torch.isfinite(refreshed["deter"][:, 2:]).all()
    state = {k: v + float("nan") for k, v in agent.initial_state(4).items()}
    _, state, latents = agent.act({"obs": torch.zeros(4, 5)}, torch.ones(4, dtype=torch.bool), state)
    assert all(torch.isfinite(v).all() for v in (*state.values(), latents["deter"]))


def test_noise_of_another_kind_of_device_becomes_a_seed(make_agent: Make) -> None:
    """CUDA's generators keep 16 bytes: a run goes on where there is no GPU, with other noise, the same each time."""
    saved = make_agent().state_dict()
    saved["generator/act"] = torch.arange(16, dtype=torch.uint8)
    agents = [make_agent(seed=seed) for seed in (1, 2)]
    for agent in agents:
        agent.load_state_dict(saved)
    (first, second), other = (act(agent) for agent in agents), make_agent()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other.load_state_dict(saved | {"generator/act": torch.arange(1, 17, dtype=torch.uint8)})
    assert not all(torch.equal(a, b) for a, b in zip(first, act(other), strict=True))
    assert torch.equal(agents[0].generator.get_state(), saved["generator/update"])

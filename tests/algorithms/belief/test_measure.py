"""The measures of belief, on cases small enough to know the answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.belief.measure import (
    BINS,
    calibration_error,
    first_order,
    intended_actions,
    intents,
    last_action,
    oracles,
    reliability,
    zero_order,
)
from oneiros.algorithms.belief.seats import Columns

GOAL: dict[str, dict[str, spaces.Space[Any]]] = {n: {"goal": spaces.Discrete(2)} for n in ("ann", "bob")}


def logits(*probabilities: list[float]) -> torch.Tensor:
    """Beliefs ``(1, G, 2)`` of the agents in one row."""
    return torch.tensor([probabilities]).log()


def one_hot(*values: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([values]), 2).float()


def test_zero_order_of_one_row() -> None:
    found = zero_order(
        Columns(GOAL), logits([0.8, 0.2], [0.5, 0.5]), one_hot(0, 1), torch.ones(1, 2) > 0, torch.ones(1) > 0
    )
    assert found["belief/ann/goal/nll"] == pytest.approx(-math.log(0.8), rel=1e-5)
    assert found["belief/ann/goal/brier"] == pytest.approx(0.08, rel=1e-4)
    assert found["belief/ann/goal/ece"] == pytest.approx(0.2, rel=1e-4)
    assert found["belief/ann/goal/accuracy"] == found["belief/ann/goal/final_accuracy"] == 1
    assert found["belief/bob/goal/chance_nll"] == pytest.approx(math.log(2), rel=1e-5)


def test_how_far_a_belief_is_from_exact_inference() -> None:
    """Two parts; Ann, who is gone in the second row, knows one part exactly and is wrong about the other."""
    targets = Columns({"ann": {"cards": spaces.MultiDiscrete([2, 2])}})
    believed = torch.tensor([[[0.5, 0.5, 0.6, 0.4]], [[0.9, 0.1, 0.9, 0.1]]]).log()
    exact = torch.tensor([[0.5, 0.5], [1.0, 0.0]]).expand(2, 2, 2)
    truth = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]]).expand(2, 1, 4)
    here = torch.tensor([[True], [False]])
    found = oracles(targets, believed, {"training/ann/oracle/cards": exact}, truth, here)
    assert found["belief/ann/cards/oracle_nll"] == pytest.approx(math.log(2) / 2, rel=1e-5)
    assert found["belief/ann/cards/oracle_kl"] == pytest.approx(-math.log(0.6) / 2, rel=1e-5)
    assert oracles(targets, believed, {}, truth, here) == {}


def test_calibration_error_of_a_calibrated_and_of_an_overconfident_mind() -> None:
    confidence = torch.full((1000,), 0.75)
    assert calibration_error(confidence, (torch.arange(1000) % 4 > 0).float()) == pytest.approx(0, abs=1e-5)
    assert calibration_error(confidence, torch.zeros(1000)) == pytest.approx(0.75, rel=1e-5)


def test_reliability_has_the_beliefs_of_each_confidence_apart() -> None:
    table = reliability(torch.tensor([0.55, 0.59, 0.95, 1.0]), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert table.shape == (BINS, 3)
    torch.testing.assert_close(table[5], torch.tensor([0.57, 0.5, 0.5]))
    torch.testing.assert_close(table[9], torch.tensor([0.975, 1.0, 0.5]))
    assert float(table[:, 2].sum()) == 1 and not bool(table[[0, 1, 2, 3, 4, 6, 7, 8]].any())


def test_modelling_a_mind_is_told_from_copying_ones_own() -> None:
    """Ann is right, Bob is wrong; Ann knows that he is."""
    own = logits([0.9, 0.1], [0.2, 0.8])
    about = torch.zeros(1, 2, 2, 2)
    about[0, 0, 1] = torch.tensor([0.2, 0.8]).log()
    about[0, 1, 0] = torch.tensor([0.5, 0.5]).log()
    found = first_order(Columns(GOAL), own, about, one_hot(0, 0), torch.ones(1, 2) > 0)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    copied = -(0.2 * math.log(0.9) + 0.8 * math.log(0.1))
    ann = "first_order/ann/goal_about_bob"
    assert found[f"{ann}/nll"] == found[f"{ann}/floor"] == pytest.approx(entropy, rel=1e-5)
    assert found[f"{ann}/copy_nll"] == pytest.approx(copied, rel=1e-5)
    assert found[f"{ann}/false_belief/share"] == 1
    assert found[f"{ann}/false_belief/nll"] == pytest.approx(entropy, rel=1e-5)
    assert found["first_order/bob/goal_about_ann/false_belief/share"] == 0
    assert "first_order/bob/goal_about_ann/false_belief/nll" not in found


def test_intents_against_habit_and_repetition() -> None:
    actions = Columns({n: {"": spaces.Discrete(2)} for n in ("ann", "bob")})
    taken = torch.tensor([[0, 1, 1, 1]])
    action = torch.zeros(4, 2, 2)
    action[:, 1] = torch.nn.functional.one_hot(taken[0], 2).float()
    guess = torch.zeros(4, 2, 2, 2)
    guess[:, 0, 1] = torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0], [0, 1.0]])
    rows = {"is_first": np.array([[True, False, False, False]])}
    found = intents(actions, guess, action, torch.ones(4, 2) > 0, (1, 4), rows)
    assert found["intent/ann_about_bob/accuracy"] == 0.75
    assert found["intent/ann_about_bob/marginal_accuracy"] == 0.75
    assert found["intent/ann_about_bob/last_action_accuracy"] == 0.5


def test_intents_against_the_policy_itself() -> None:
    """Bob mostly does 1; he acts in three of four steps. Ann knows his policy in the first and has it wrong later."""
    actions = Columns({n: {"": spaces.Discrete(2)} for n in ("ann", "bob")})
    policy = torch.zeros(4, 2, 2)
    policy[:, 1] = torch.tensor([[0.1, 0.9], [0.4, 0.6], [0.5, 0.5], [0.4, 0.6]])
    guess = torch.zeros(4, 2, 2, 2)
    guess[:, 0, 1] = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5], [0.4, 0.6]]).log()
    acts = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]) > 0
    rows = {"is_first": np.array([[True, False, False, False]])}
    found = intended_actions(actions, guess, policy, acts, (1, 4), rows)
    bob = {name.rpartition("/")[2]: value for name, value in found.items() if name.startswith("intent/ann_about_bob")}
    assert bob["accuracy"] == pytest.approx((0.9 + 0.4 + 0.6) / 3)
    assert bob["marginal_accuracy"] == bob["best_accuracy"] == pytest.approx((0.9 + 0.6 + 0.6) / 3)
    assert bob["last_action_accuracy"] == pytest.approx((0 + 0.1 * 0.4 + 0.9 * 0.6 + 0.4 * 0.4 + 0.6 * 0.6) / 3)
    entropies = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.9, 0.6, 0.6)]
    assert bob["floor"] == pytest.approx(sum(entropies) / 3)
    wrong = -0.4 * math.log(0.8) - 0.6 * math.log(0.2)
    assert bob["nll"] == pytest.approx((entropies[0] + wrong + entropies[2]) / 3)
    assert bob["marginal_nll"] == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7))


def test_the_last_action_is_of_this_episode_and_was_executed() -> None:
    taken = torch.tensor([[3, 4, 5, 6]])
    executed = torch.tensor([[True, False, True, True]])
    first = torch.tensor([[True, False, False, True]])
    assert last_action(taken, executed, first).tolist() == [[-1, 3, 3, -1]]

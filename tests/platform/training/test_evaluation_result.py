"""What an engine reports of an evaluation that several processes played parts of."""

import json

import pytest
from oneiros.platform.rollout import EvaluationResult


def part(extras, shares, episodes):
    return EvaluationResult((0.0,) * episodes, (1,) * episodes, extras, shares=shares)


def test_milestones_have_rates_and_their_intervals():
    parts = [
        part({"milestone_log": 0.25, "milestones": 2.0}, {"milestone_log": 10}, 40),
        part({"milestone_log": 0.7, "milestones": 0.7}, {"milestone_log": 7, "milestones": 7}, 10),
    ]
    joined = EvaluationResult.join(parts, env_steps=5)
    metrics = joined.metrics()
    assert metrics["milestone_log"] == pytest.approx(17 / 50)
    assert (metrics["milestone_log_low"], metrics["milestone_log_high"]) == pytest.approx((0.2244, 0.4785), abs=5e-5)
    # What is a count in one part is no share in all.
    assert set(metrics) == {
        *("milestone_log", "milestone_log_low", "milestone_log_high", "milestones"),
        *("return_mean", "return_std", "length_mean"),
    }
    stored = json.loads(json.dumps(joined.summary()))
    assert stored["intervals"]["milestone_log"] == pytest.approx([0.2244, 0.4785], abs=5e-5)


def test_what_one_part_does_not_speak_of_is_no_share_of_all():
    joined = EvaluationResult.join([part({"milestone_log": 1.0}, {"milestone_log": 3}, 3), part({}, {}, 7)], 0)
    assert joined.shares == {} and "milestone_log_low" not in joined.metrics()


def test_figures_of_all_are_those_of_all_episodes():
    parts = [EvaluationResult((1.0, 2.0, 3.0), (5, 6, 7)), EvaluationResult((10.0,), (2,), faults=2)]
    joined = EvaluationResult.join(parts, env_steps=8)
    assert (joined.episodes, joined.return_mean, joined.length_mean, joined.faults) == (4, 4.0, 5.0, 2)
    assert joined.return_std == pytest.approx((50 / 4) ** 0.5)
    assert joined.summary()["env_steps"] == 8 and "env_steps" not in parts[0].summary()

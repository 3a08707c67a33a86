"""What an engine reports of an evaluation that several processes played parts of."""

import json

import pytest
from oneiros.platform.rollout import EvaluationResult as Part
from oneiros.platform.training.engine import EvaluationResult


def part(extras, shares, episodes):
    scores = (0.0,) * episodes
    return Part(episodes, 0.0, 0.0, 1.0, scores, (1,) * episodes, extras, shares=shares)


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
    stored = json.loads(json.dumps(joined.to_dict()))
    assert stored["intervals"]["milestone_log"] == pytest.approx([0.2244, 0.4785], abs=5e-5)


def test_what_one_part_does_not_speak_of_is_no_share_of_all():
    joined = EvaluationResult.join([part({"milestone_log": 1.0}, {"milestone_log": 3}, 3), part({}, {}, 7)], 0)
    assert joined.shares == {} and "milestone_log_low" not in joined.metrics()

"""``oneiros bench --against rllib``: the same work, in turns, counted the same way."""

import pytest
from oneiros.platform.bench.comparison import Comparison, RLlibLearner, RLlibProcess, measure_against_rllib
from oneiros.platform.bench.learner import Learner, LearnerSettings
from oneiros.platform.config import ConfigError

SMALL = {"batch_size": 2, "batch_length": 6, "imagination_length": 2, "compile": "off", "rllib_size": "nano"}
WIDTHS = {"deter": 32, "hidden": 8, "groups": 4, "classes": 4, "units": 13}
"""Ours of as many parameters as RLlib's "nano" has."""


def test_rllib_learns_from_what_it_is_given():
    learner = RLlibLearner(Comparison(**SMALL))
    before = [p.detach().clone() for p in learner._learner._params.values()]
    metrics = learner.update()["default_policy"]
    for part in ("WORLD_MODEL", "ACTOR", "CRITIC"):
        assert float(metrics[f"{part}_gradients_global_norm"].peek()) > 0
    changed = [not old.equal(new) for old, new in zip(before, learner._learner._params.values(), strict=True)]
    assert sum(changed) > len(changed) / 2


def test_the_speedup_is_that_of_the_medians():
    result = measure_against_rllib(Comparison(widths=WIDTHS, **SMALL), 2)
    assert result["speedup"] == pytest.approx(result["rllib"]["median_s"] / result["oneiros"]["median_s"])
    assert result["parameter_ratio"] == pytest.approx(result["oneiros"]["parameters"] / result["rllib"]["parameters"])
    assert result["rllib"]["size"] == "nano"
    assert result["updates"] == 2


def test_models_of_different_sizes_are_not_compared():
    with pytest.raises(ConfigError, match="more than a tenth"):
        measure_against_rllib(Comparison(widths={**WIDTHS, "units": 32}, **SMALL), 1)


def test_the_widths_come_to_the_parameters_of_rllibs_xs():
    theirs = RLlibLearner(Comparison()).parameters
    ours = Learner(LearnerSettings(compile="off", overrides=Comparison().widths))
    ours.close()
    assert abs(ours.parameters / theirs - 1) < 0.03


def test_an_rllib_that_ends_is_told_of_in_one_sentence():
    theirs = RLlibProcess(Comparison(**SMALL))
    theirs._process.kill()
    theirs._process.join()
    with pytest.raises(ConfigError, match="ended without an answer"):
        theirs.update()
    theirs.close()
    with pytest.raises(ConfigError, match="ended without an answer"):
        measure_against_rllib(Comparison(widths=WIDTHS, **{**SMALL, "rllib_size": "huge"}), 1)

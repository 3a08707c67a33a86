"""What the driver makes of the learners' answers."""

from types import SimpleNamespace

from oneiros.platform.engine.flow import SLICE_SECONDS, Flow
from oneiros.platform.engine.learner import LearnResult
from oneiros.platform.engine.learner_calls import Answer


def flow():
    config = SimpleNamespace(
        train_ratio=8.0,
        rows_per_update=lambda: 32,
        fragment_length=lambda: 16,
        num_envs_per_env_runner=1,
        broadcast_interval_s=1.0,
    )
    runners = SimpleNamespace(num_remote_env_runners=lambda: 2)
    return Flow(config, runners, SimpleNamespace(learners=1, in_flight=0))


def answer(updates, seconds):
    return Answer([LearnResult(True, updates, seconds=seconds)], updates)


def test_a_slice_is_what_learners_do_in_its_time_however_late_their_answers_are_read():
    made = flow()
    for _ in range(50):
        # Both calls in flight were done when the driver looked, as after an evaluation.
        made._updates_in_flight = 80
        made._take_results([answer(40, 0.2), answer(40, 0.2)])
    assert 0.9 * 200 * SLICE_SECONDS < made._slice() <= 200 * SLICE_SECONDS
    assert made.bound <= 2 * 200 * SLICE_SECONDS


def test_the_slowest_learner_sets_the_pace():
    made = flow()
    for _ in range(50):
        made._take_results([Answer([LearnResult(True, 40, seconds=0.2), LearnResult(True, 40, seconds=0.4)], 40)])
    assert made._slice() == round(100 * SLICE_SECONDS)

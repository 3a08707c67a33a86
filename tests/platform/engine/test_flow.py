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
    runners = SimpleNamespace(num_remote_env_runners=lambda: 2, healthy_env_runner_ids=lambda: [1, 2])
    return Flow(config, runners, SimpleNamespace(learners=1, in_flight=0))


def answer(updates, seconds):
    return Answer([LearnResult(True, updates, seconds=seconds)], (updates, 0))


def test_a_slice_is_what_learners_do_in_its_time_however_late_their_answers_are_read():
    made = flow()
    for _ in range(100):
        # Both calls in flight were done when the driver looked, as after an evaluation.
        made._updates_in_flight = 80
        made._take_results([answer(40, 0.2), answer(40, 0.2)])
    assert 0.9 * 200 * SLICE_SECONDS < made._slice() <= 200 * SLICE_SECONDS
    assert made.bound <= 2 * 200 * SLICE_SECONDS


def test_the_slowest_learner_sets_the_pace():
    made = flow()
    for _ in range(50):
        made._take_results([Answer([LearnResult(True, 40, seconds=0.2), LearnResult(True, 40, seconds=0.4)], (40, 0))])
    assert made._slice() == round(100 * SLICE_SECONDS)


def test_an_answer_that_took_no_time_at_all_does_not_make_the_next_slice_endless():
    made = flow()
    for _ in range(20):
        made._take_results([answer(1, 1.0)])
    assert made._slice() == 1
    made._take_results([answer(1, 0.0)])
    assert made._slice() <= 2
    for _ in range(100):
        made._take_results([answer(100, 0.1)])
    fast = made._slice()
    # A learner that has become a hundred times slower is given less at once, not after another ten long slices.
    for _ in range(3):
        made._take_results([answer(10, 1.0)])
    assert made._slice() <= 0.05 * fast


def test_a_runner_is_silent_only_while_somebody_listens_and_begins_anew_when_started_again():
    made = flow()
    assert made.silent(2.0) == []
    made._listened = 1.9
    assert made.silent(2.0) == []
    made._heard[1] = made._listened
    made._listened = 2.1
    assert made.silent(2.0) == [2] and made.silent(2.0) == []
    # Runner 1 dies, and is back after a long time in which it could not say anything.
    made.runners.healthy_env_runner_ids = lambda: [2]
    made._listened = 3.9
    assert made.silent(2.0) == []
    made._listened, made._heard[2] = 100.0, 100.0
    made.runners.healthy_env_runner_ids = lambda: [1, 2]
    assert made.silent(2.0) == []


def test_of_chunks_that_a_dead_learner_had_those_under_way_are_lost_and_counted_and_others_wait_for_the_next():
    made = flow()
    made.learners.submit = lambda *call, note: None
    begun = made.state_dict()
    made._arrived[0] = [["chunk"], ["chunk"]]
    made._submit(0)
    made._arrived[0] = [["another"]]
    made.relearn_from(begun, 0)
    assert made.faults == {"chunks_lost": 2} and made._arrived == [[["another"]]]
    made._submit(0)
    made._take_results([Answer([LearnResult(True, 0)], (0, 1))])
    made.relearn_from(begun, 0)
    assert made.faults == {"chunks_lost": 2}

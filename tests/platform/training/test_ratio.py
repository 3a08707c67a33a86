import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oneiros.platform.training.ratio import TrainRatio

ratios = st.one_of(st.integers(1, 2048), st.sampled_from([0.25, 0.1, 1.5, 33.3, 1024.0]))


@given(ratios, st.sampled_from([32, 1024, 1000, 7]), st.lists(st.integers(0, 97), min_size=1, max_size=60))
@settings(deadline=None)
def test_replayed_steps_follow_policy_steps_exactly(ratio: float, rows: int, arrivals: list[int]) -> None:
    counter = TrainRatio(ratio, rows)
    counter.start(500)
    steps, updates = 500, 0
    for arrived in arrivals:
        steps += arrived
        due = counter.due(steps)
        counter.done(due)
        updates += due
        owed = (steps - 500) * ratio - updates * rows
        assert -1e-6 <= owed < rows + 1e-6
    assert counter.due(steps) == 0


def test_nothing_drifts_over_ten_million_steps() -> None:
    counter = TrainRatio(0.1, 1024)
    counter.start(0)
    for steps in range(0, 10_000_001, 10_000):
        counter.done(counter.due(steps))
    assert counter._updates == 976
    assert counter.actual(10_000_000) == pytest.approx(0.1, rel=1e-3)


def test_steps_before_start_owe_nothing() -> None:
    counter = TrainRatio(1024, 1024)
    assert not counter.started and counter.due(10_000) == 0
    counter.start(10_000)
    assert counter.due(10_000) == 0 and counter.due(10_003) == 3


def test_resume_neither_repeats_nor_skips() -> None:
    first = TrainRatio(96, 1024)
    first.start(100)
    first.done(first.due(1_111))
    second = TrainRatio(96, 1024)
    second.load_state_dict(first.state_dict(), 1_111)
    assert [second.due(steps) for steps in range(1_100, 1_300)] == [first.due(steps) for steps in range(1_100, 1_300)]


def test_a_changed_ratio_counts_from_the_resume_on() -> None:
    first = TrainRatio(96, 1024)
    first.start(0)
    first.done(first.due(50_000))
    second = TrainRatio(512, 1024)
    second.load_state_dict(first.state_dict(), 50_000)
    assert second.due(50_000) == 0 and second.due(50_002) == 1


@pytest.mark.parametrize("ratio", [-1, float("nan"), float("inf")])
def test_a_ratio_that_is_no_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="train_ratio"):
        TrainRatio(ratio, 1024)

"""What MLflow is told of a run that was killed and took steps again."""

import pytest
from oneiros.platform.tracking import MetricsFile
from oneiros.platform.tracking.line_file import LineFile
from oneiros.platform.tracking.telling import Telling


@pytest.fixture
def killed(tmp_path):
    """Killed at 30, gone on from 15, killed at 40, gone on from 15 again."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for steps in (10, 20, 30):
        file.append({"loss": 1.0}, steps)
    file.append({"evaluation/return": 1.0}, 30)
    file.append({}, 15)
    for steps in (20, 30, 40):
        file.append({"loss": 2.0}, steps)
    file.append({"evaluation/return": 2.0}, 40)
    file.append({}, 15)
    for steps in (20, 35, 45):
        file.append({"loss": 3.0, "rare": 3.0}, steps)
    return file.path


def told(telling, most=100):
    rows = []
    while (batch := telling.batch(most))[1] != telling.offset:
        rows += batch[0]
        telling.was_told()
    return [(row["env_steps"], name, row[name]) for row in rows for name in row.keys() - {"env_steps", "time"}]


EXPECTED = [
    (10, "loss", 1.0), (20, "loss", 1.0), (30, "loss", 1.0), (30, "evaluation/return", 1.0), (40, "loss", 2.0),
    (40, "evaluation/return", 2.0), (20, "rare", 3.0), (35, "rare", 3.0), (45, "loss", 3.0), (45, "rare", 3.0),
]  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 100])
def test_every_figure_is_told_once_a_step_and_in_order(killed, most):
    telling = Telling(LineFile(killed), 0)
    found = told(telling, most)
    assert sorted(found) == sorted(EXPECTED)
    for name in {name for _, name, _ in found}:
        steps = [step for step, other, _ in found if other == name]
        assert steps == sorted(set(steps))
    assert telling.retaken == ["16..30", "16..40"]


def test_whoever_begins_anywhere_tells_the_rest(killed):
    lines = list(LineFile(killed).read(0, 100))
    whole = told(Telling(LineFile(killed), 0), 1)
    for _, end in lines:
        before = Telling(LineFile(killed), 0)
        first = []
        while before.offset < end:
            first += before.batch(1)[0]
            before.was_told()
        first = [(row["env_steps"], name, row[name]) for row in first for name in row.keys() - {"env_steps", "time"}]
        assert sorted(first + told(Telling(LineFile(killed), end))) == sorted(whole)


def test_what_was_not_told_is_handed_out_again(killed):
    telling = Telling(LineFile(killed), 0)
    assert telling.batch(2) is telling.batch(2) and telling.offset == 0
    telling.was_told()
    assert telling.batch(1)[0][0]["env_steps"] == 30


def test_one_life_may_record_a_figure_twice_at_a_step(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append({"evaluation/return": 1.0}, 10)
    file.append({"evaluation/return": 2.0}, 10)
    assert [value for *_, value in told(Telling(LineFile(file.path), 0))] == [1.0, 2.0]

"""Each selector draws with the probabilities that it promises."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oneiros.platform.replay import Replay
from oneiros.platform.replay.selectors import SumTree

OPTIONS = {"capacity": 4000, "length": 4, "context": 1, "chunk_rows": 32, "online": False, "seed": 5}


@settings(max_examples=60)
@given(
    changes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 50)), min_size=1, max_size=60),
    fractions=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=10),
)
def test_sum_tree_is_a_running_sum(changes: list[tuple[int, int]], fractions: list[float]) -> None:
    tree, weights = SumTree(), np.zeros(41)
    for leaf, weight in changes:
        tree[leaf] = weight
        weights[leaf] = weight
        assert tree.total == weights.sum()
        assert tree[leaf] == weight
    if tree.total == 0:
        return
    points = np.array(fractions) * tree.total
    leaves, rest = tree.find(points)
    expected = np.searchsorted(np.cumsum(weights), points, side="right")
    np.testing.assert_array_equal(leaves, expected)
    np.testing.assert_allclose(rest, points - (np.cumsum(weights) - weights)[expected])


def test_sum_tree_never_finds_an_empty_leaf() -> None:
    tree = SumTree()
    for leaf, weight in enumerate([0.0, 0.1, 0.2, 0.0, 0.7, 0.0, 0.0]):
        tree[leaf] = weight
    leaves, rest = tree.find(np.array([0.0, tree.total, np.nextafter(tree.total, 2)]))
    assert leaves.tolist() == [1, 4, 4]
    assert rest[1] <= tree[4]


def positions(replay: Replay, draws: int) -> np.ndarray:
    return np.concatenate([replay.sample(500)["obs"][:, 0, 2] for _ in range(draws // 500)])


@pytest.mark.parametrize("stride", [1, 4])
def test_priorities_are_proportions(tools: SimpleNamespace, stride: int) -> None:
    replay = Replay(
        tools.FIELDS, **{**OPTIONS, "latent_stride": stride}, mixture={"priority": 1.0}, priority_exponent=0.5
    )
    replay.add(tools.Source().chunk([0], 104))
    starts = replay.windows.locate(np.arange(replay.windows.total))
    signal = np.where(np.arange(len(starts)) % 3 == 0, 9.0, 1.0)
    replay.prioritise(starts, signal)
    drawn = positions(replay, 20000) // stride
    counts = np.bincount(drawn, minlength=len(starts))
    expected = 20000 * np.sqrt(signal) / np.sqrt(signal).sum()
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - len(starts)) < 5 * np.sqrt(2 * len(starts))


def test_new_windows_have_the_largest_priority(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"priority": 1.0})
    source = tools.Source()
    replay.add(source.chunk([0], 50))
    starts = replay.windows.locate(np.arange(replay.windows.total))
    replay.prioritise(starts, np.full(len(starts), 0.0))
    replay.prioritise(starts[:1], np.array([1000.0]))
    replay.prioritise(starts[:1], np.array([0.0]))
    replay.add(source.chunk([0], 10))
    assert (positions(replay, 1000) >= 46).mean() > 0.95


def test_signals_about_rows_that_begin_no_window_change_nothing(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"priority": 1.0})
    replay.add(tools.Source().chunk([0], 50))
    replay.prioritise(np.arange(46, 60, dtype=np.int64), np.full(14, 1e9))
    replay.prioritise(np.array([77 << 20], np.int64), np.array([1e9]))
    assert positions(replay, 500).max() <= 45


def test_signals_that_are_no_numbers_are_counted_and_ignored(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"priority": 1.0})
    replay.add(tools.Source().chunk([0], 50))
    ids = replay.sample(4)["row_id"]
    replay.prioritise(ids, np.array([np.nan, np.inf, -1.0, 1.0]))
    assert replay.stats()["signals_ignored"] == 3
    replay.sample(100)


def test_curiosity_spreads_visits_and_returns_to_what_surprises(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"curious": 1.0})
    replay.add(tools.Source().chunk([0], 50))
    count = replay.windows.total
    visits = np.zeros(count, int)
    for _ in range(20 * count):
        batch = replay.sample(1)
        visits[batch["obs"][0, 0, 2]] += 1
        replay.prioritise(batch["row_id"], np.zeros(1))
    # Uniform draws would spread twenty visits by a deviation of 4.5.
    assert visits.std() < 2
    starts = replay.windows.locate(np.arange(count))
    for _ in range(60):
        replay.prioritise(starts, np.where(np.arange(count) == 7, 1e6, 0.0))
    assert (positions(replay, 1000) == 7).mean() > 0.9

    replay.save(tmp_path / "save")
    again = Replay(tools.FIELDS, **OPTIONS, mixture={"curious": 1.0})
    again.load(tmp_path / "save")
    for _ in range(3):
        one, other = replay.sample(4), again.sample(4)
        np.testing.assert_array_equal(one["row_id"], other["row_id"])
        replay.prioritise(one["row_id"], np.zeros(4))
        again.prioritise(other["row_id"], np.zeros(4))


def test_recency_halves_with_age(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"recency": 1.0}, recency_half_life=100)
    source = tools.Source()
    for _ in range(60):
        replay.add(source.chunk([0], 10))
    age = 595 - positions(replay, 40000)
    for low in (0, 100, 200, 300):
        younger, older = ((age >= start) & (age < start + 100) for start in (low, low + 100))
        assert younger.sum() / older.sum() == pytest.approx(2, rel=0.15)
    # Within one chunk, where every window belongs to the same span, as well as between chunks.
    young = np.bincount(age[age < 60], minlength=60)
    slope = np.polyfit(np.arange(60), np.log2(young), 1)[0]
    assert slope == pytest.approx(-1 / 100, rel=0.35)


def test_recency_survives_ages_that_underflow(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, mixture={"recency": 1.0}, recency_half_life=0.5)
    source = tools.Source()
    for _ in range(200):
        replay.add(source.chunk([0], 10))
    assert (positions(replay, 500) >= 1980).all()


def test_a_mixture_asks_each_in_its_fraction(tools: SimpleNamespace) -> None:
    mixture = {"uniform": 0.5, "priority": 0.3, "recency": 0.2}
    replay = Replay(tools.FIELDS, **OPTIONS, mixture=mixture, recency_half_life=1)
    replay.add(tools.Source().chunk([0], 1000))
    replay.add(tools.Source().chunk([1], 5), continues=False)
    starts = replay.windows.locate(np.arange(replay.windows.total))
    signal = np.zeros(len(starts))
    signal[7] = 1e9
    replay.prioritise(starts, signal)
    batch = np.concatenate([replay.sample(500)["obs"][:, 0] for _ in range(20)])
    assert ((batch[:, 0] == 0) & (batch[:, 2] == 7)).mean() == pytest.approx(0.3, abs=0.03)
    assert (batch[:, 0] == 1).mean() == pytest.approx(0.2, abs=0.03)

"""``oneiros bench growth``, and the arithmetic of measurements."""

import pytest
import torch
from oneiros.platform.bench import growth, machine, report
from oneiros.platform.bench.durations import Durations, repeat
from oneiros.platform.bench.growth import AXES, Subject, exponents


@pytest.mark.parametrize(
    ("axis", "values"),
    [("imagination_length", (2, 4)), ("envs", (1, 2)), ("replay_rows", (2100, 2200))],
)
def test_an_axis(bench, tiny, axis, values):
    shorter = ["--set", "batch_size=2", "--set", "batch_length=6"]
    code, result, out, _ = bench("growth", axis, *values, "--repeats", 1, *tiny, *shorter)
    assert code == 0
    assert [point["value"] for point in result["points"]] == list(values)
    assert all(point["median_s"] > 0 for point in result["points"])
    assert result["points"][0]["relative"] == 1 and result["points"][1]["relative"] > 0
    assert len(result["exponents"]) == 1
    assert result["bound"] == AXES[axis].bound
    assert result["bound"][:40] in out


def test_exponents():
    points = [{"value": v, "relative": s} for v, s in ((1, 1.0), (2, 2.0), (4, 2.0), (8, 8.0))]
    assert exponents(points) == pytest.approx([1.0, 0.0, 2.0])
    assert exponents([{"value": "1m", "relative": 1.0}, {"value": "12m", "relative": 2.0}]) == [None]


def test_a_machine_that_slows_down_slows_all_values_alike():
    """Each of its ten costs twice what the first value costs, in every round, whatever the round costs."""
    first = Subject(1, lambda: None, 1, lambda: None, durations=Durations([9.0, 9.0, 9.0], [1.0, 3.0, 2.0]))
    second = Subject(2, lambda: None, 10, lambda: None, durations=Durations([9.0, 9.0, 9.0], [20.0, 60.0, 40.0]))
    point = growth._point(second, first, torch.device("cpu"))
    assert point["relative"] == pytest.approx(2.0)
    assert point["cpu_s"] == pytest.approx(4.0) and point["median_s"] == pytest.approx(0.9)
    assert growth._point(second, first, torch.device("cuda"))["relative"] == pytest.approx(0.1), "there, wall clock"


def test_summaries():
    durations = Durations([3.0, 1.0, 2.0, 10.0, 4.0], [1.0] * 5)
    summary = durations.summary()
    assert (summary["median_s"], summary["min_s"], summary["max_s"], summary["cpu_s"]) == (3.0, 1.0, 10.0, 1.0)
    assert Durations([2.0], [1.0]).summary()["quarter_s"] == 2.0


def test_warming_up_does_not_count():
    calls = []
    assert len(repeat(lambda: calls.append(1), 3, warm_up=2).wall) == 3
    assert len(calls) == 5


@pytest.mark.parametrize(("own", "share"), [(1.0, 0.5), (2.0, 0.0), (0.0, 1.0)])
def test_the_load_of_others_is_what_is_busy_beyond_ones_own(monkeypatch, own, share):
    """Of 2 cores over a second, all 200 ticks were busy: what this process did not use, others did."""
    ticks, seconds = iter([(0, 0), (200, 200)]), iter([0.0, own])
    monkeypatch.setattr(machine, "_jiffies", lambda: next(ticks))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(seconds))
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    with machine.OtherLoad() as others:
        pass
    assert others.share == pytest.approx(share)


def test_figures_have_units():
    assert report.seconds(1.234) == "1.23 s"
    assert report.seconds(0.01234) == "12.3 ms"
    assert report.seconds(1.5e-5) == "15 µs"
    assert report.amount(3.2e9, "B") == "3.2 GB"
    assert "too busy" in report.load(0.5) and "too busy" not in report.load(0.01)

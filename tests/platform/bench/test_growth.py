"""``oneiros bench growth``, and the arithmetic of measurements."""

import pytest
from oneiros.platform.bench import machine, report
from oneiros.platform.bench.durations import Durations, repeat
from oneiros.platform.bench.growth import AXES, exponents


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
    assert len(result["exponents"]) == 1
    assert result["bound"] == AXES[axis].bound
    assert result["bound"][:40] in out


def test_exponents():
    points = [{"value": v, "median_s": s} for v, s in ((1, 1.0), (2, 2.0), (4, 2.0), (8, 8.0))]
    assert exponents(points) == pytest.approx([1.0, 0.0, 2.0])
    assert exponents([{"value": "1m", "median_s": 1.0}, {"value": "12m", "median_s": 2.0}]) == [None]


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

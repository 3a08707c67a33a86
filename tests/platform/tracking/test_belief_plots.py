"""Pictures of beliefs: drawn where there are numbers for them, and only there."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from matplotlib.axes import Axes
from oneiros.platform.tracking.belief_plots import Spent, draw

NUMBERS = {
    "belief/ann/goal/nll": 0.3,
    "belief/ann/goal/chance_nll": 1.1,
    "belief/ann/goal/oracle_nll": 0.2,
    "belief/ann/goal/accuracy": 0.9,
    "first_order/ann/goal_about_bob/nll": 0.4,
    "first_order/ann/goal_about_bob/copy_nll": 0.9,
    "first_order/ann/goal_about_bob/floor": 0.3,
    "first_order/ann/goal_about_bob/false_belief/nll": 1.4,
    "first_order/ann/goal_about_bob/false_belief/copy_nll": 6.0,
    "first_order/ann/goal_about_bob/false_belief/floor": 1.0,
    "first_order/ann/goal_about_bob/false_belief/share": 0.1,
    "intent/ann_about_bob/accuracy": 0.1,
    "intent/ann_about_bob/policy/accuracy": 0.5,
    "intent/ann_about_bob/policy/marginal_accuracy": 0.4,
    "intent/ann_about_bob/policy/last_action_accuracy": 0.3,
    "intent/ann_about_bob/policy/best_accuracy": 0.6,
}
TABLE = np.zeros((10, 3))
TABLE[8:] = [[0.85, 0.8, 0.25], [0.97, 0.99, 0.75]]
SPENT = [Spent(None, 24.0, (-3.0, -5.0), 0.9), Spent(0.0, 0.0, (-9.0, -7.0), 0.4)]


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The heights of all bars that are drawn."""
    seen: list[list[float]] = []
    bar = Axes.bar

    def spy(self: Axes, places: object, heights: list[float], *args: object, **options: object) -> object:
        seen.append(list(heights))
        return bar(self, places, heights, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "bar", spy)
    return seen


def test_every_picture_is_drawn_of_the_numbers_it_is_about(tmp_path: Path, heights: list[list[float]]) -> None:
    drawn = draw(tmp_path / "new", NUMBERS, {"calibration/ann/goal": TABLE}, SPENT)
    assert [path.stem for path in drawn] == ["calibration", "zero_order", "first_order", "intent", "return_by_bits"]
    for path in drawn:
        image = imageio.imread(path)
        assert image.shape[:2] == (480, 768) and image[..., :3].std() > 10, "an empty picture is white"
    assert heights == [[0.3], [0.4, 1.4], [0.9, 6.0], [0.5], [0.4], [0.3]]


def test_what_is_not_known_is_not_drawn(tmp_path: Path) -> None:
    assert draw(tmp_path, {"return_mean": 3.0}, {}) == []
    without_beliefs = [Spent(None, 24.0, (-3.0,), None)]
    assert [path.stem for path in draw(tmp_path, {}, {}, without_beliefs)] == ["return_by_bits"]

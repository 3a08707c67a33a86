"""The rules that make the way to the diamond long: tools, hunger, and the night; in the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oneiros.envs import registry
from oneiros.envs.luanti import settings
from oneiros.envs.minecraft.actions import NAMES

pytestmark = pytest.mark.usefixtures("engine")
WORLD = 7
DAY_STEPS = 24_000


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = registry.make("luanti/diamond", spare=False, worlds=[WORLD], oracle=True, break_speed=1)
    made.reset(seed=0)
    yield made
    made.close()


def ask(env: Any, question: str, **details: Any) -> Any:
    """What the oracle says, a step later."""
    env.unwrapped.instance.ask(question, **details)
    env.step(0)
    return env.unwrapped.instance.answer()


def test_each_ore_needs_the_tool_before(env: Any) -> None:
    tools = ("", "default:pick_wood", "default:pick_stone", "default:pick_steel")
    nodes = ("default:tree", "default:stone", "default:stone_with_iron", "default:stone_with_diamond")
    seconds = ask(env, "digging", tools=tools, nodes=nodes)
    can = [[time is not False for time in row] for row in seconds]
    assert can == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]
    wood, stone, steel = (row[1] for row in seconds[1:])
    assert wood > stone > steel > 0


def test_what_one_does_makes_hungry(env: Any) -> None:
    def spent() -> float:
        said = ask(env, "hunger")
        return float(said["exhaustion"] + 4 * (5 - said["saturation"]) + 4 * (20 - said["food"]))

    memory = env.unwrapped.instance.memory
    for _ in range(3):
        env.step(0)
    rest = spent()
    assert spent() == rest
    last, walked = np.array([memory.value("x"), memory.value("z")]), 0.0
    for step in range(80):
        env.step(NAMES.index("turn_left" if step % 20 == 19 else "forward"))
        place = np.array([memory.value("x"), memory.value("z")])
        walked, last = walked + float(np.hypot(*(place - last))), place
    for _ in range(12):
        env.step(0)
        place = np.array([memory.value("x"), memory.value("z")])
        walked, last = walked + float(np.hypot(*(place - last))), place
    after_walking = spent()
    assert walked > 2 and after_walking - rest == pytest.approx(0.01 * walked, abs=0.005)
    for _ in range(30):
        env.step(NAMES.index("jump"))
    # A jump alone is worth five metres.
    assert spent() - after_walking > 0.05


def test_nights_are_dark_but_not_black(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two hundred times as fast: midnight comes after 90 steps in place of 18,000.
    monkeypatch.setitem(settings.FIXED, "time_speed", 200 * int(str(settings.FIXED["time_speed"])))  # type: ignore[arg-type]
    env = registry.make("luanti/diamond", spare=False, worlds=[WORLD])
    try:
        env.reset(seed=0)
        memory = env.unwrapped.instance.memory  # type: ignore[attr-defined]
        bright: dict[str, list[float]] = {"day": [], "night": []}
        contrast = []
        for _ in range(DAY_STEPS // 200):
            observation, *_ = env.step(0)
            time = memory.value("time_of_day")
            kind = "day" if 0.4 < time < 0.6 else "night" if time < 0.1 or time > 0.9 else None
            if kind is not None:
                bright[kind].append(float(observation["image"].mean()))
            if kind == "night":
                contrast.append(float(observation["image"].std()))
        assert len(bright["day"]) > 10 and len(bright["night"]) > 10
        day, night = np.median(bright["day"]), np.median(bright["night"])
        assert 5 < night < 0.8 * day
        assert np.median(contrast) > 3
    finally:
        env.close()

"""The protocol without the engine: actions, milestones, worlds, options, what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from oneiros.envs import registry
from oneiros.envs.contract import InvalidOption, MissingDependency, UnknownEnvironment
from oneiros.envs.luanti import installation, worlds
from oneiros.envs.luanti.actions import Controls
from oneiros.envs.luanti.items import kinds, milestone_places
from oneiros.envs.luanti.settings import TURN_PIXELS, World, configuration
from oneiros.envs.luanti_suite import SUITE
from oneiros.envs.minecraft.actions import ACTIONS, ATTACK, BACK, FORWARD, JUMP, NAMES
from oneiros.envs.minecraft.progress import MILESTONES


def test_there_are_25_actions_and_12_milestones() -> None:
    assert len(NAMES) == len(set(NAMES)) == 25
    assert len(MILESTONES) == 12
    assert [kinds()[place] for place in milestone_places()] == list(MILESTONES)
    assert sorted(action.command for action in ACTIONS if action.command) == list(range(1, 15))


def test_every_kind_of_item_is_listed_once() -> None:
    lines = (installation.GAME_SOURCE / "mods" / "oneiros" / "items.txt").read_text().splitlines()
    items = [item for line in lines for item in line.split()[2:]]
    assert len(items) == len(set(items)) > 150
    assert len(kinds()) == len(set(kinds())) == len(lines) <= 512


def test_the_camera_stays_within_its_limits() -> None:
    controls = Controls(sticky_attack=0, sticky_jump=0, pitch_limit=60)
    down = NAMES.index("turn_down")
    assert [controls.press(down).turn_y for _ in range(6)] == [TURN_PIXELS] * 4 + [0, 0]
    up = NAMES.index("turn_up")
    assert [controls.press(up).turn_y for _ in range(9)] == [-TURN_PIXELS] * 8 + [0]
    assert controls.press(NAMES.index("turn_left")).turn_x == -TURN_PIXELS


def test_attacks_and_jumps_repeat() -> None:
    controls = Controls(sticky_attack=3, sticky_jump=2, pitch_limit=60)
    attack, jump, noop, back = (NAMES.index(name) for name in ("attack", "jump", "noop", "back"))
    assert [controls.press(index).keys for index in (attack, noop, back, noop)] == [ATTACK, ATTACK, ATTACK | BACK, 0]
    assert [controls.press(index).keys for index in (jump, noop, noop)] == [JUMP | FORWARD, JUMP | FORWARD, 0]
    controls.press(attack)
    controls.reset()
    assert controls.press(noop).keys == 0


def test_worlds_for_training_and_evaluation_are_apart() -> None:
    assert not set(worlds.TRAIN) & set(worlds.HELD_OUT)
    assert list(worlds.choose([3, 5])) == [3, 5]
    for wrong in ("all", [], [-1], [True], 7):
        with pytest.raises(InvalidOption, match="held-out"):
            worlds.choose(wrong)


def test_the_picture_shows_as_much_whatever_its_shape() -> None:
    for height, width, field in ((64, 64, 70 / 1.6**0.5), (90, 160, 70.0), (160, 90, 50.0)):
        assert f"fov = {field}\n" in configuration(World(height, width), seed=5)
    assert "fixed_map_seed = 5\n" in configuration(World(), seed=5)


@pytest.mark.parametrize(
    "options",
    [{"size": 16}, {"break_speed": 0}, {"break_speed": True}, {"pitch_limit": 90}, {"worlds": "mine"}, {"colour": 1}],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=r"size|break_speed|pitch_limit|worlds|colour|32 to 1024"):
        SUITE.make("diamond", **options)  # type: ignore[arg-type]


def test_unknown_tasks_are_refused(engine: None) -> None:
    with pytest.raises(UnknownEnvironment, match="luanti/"):
        registry.make("luanti/diamant")


def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(installation, "PROGRAM_FOLDERS", "")
    monkeypatch.setattr(installation, "GAMES_FOLDERS", ())
    assert len(installation.REQUIREMENT.missing()) == 4
    with pytest.raises(MissingDependency, match=r"minetest.*Xvfb.*gcc.*apt-get install -y"):
        registry.make("luanti/diamond")


def test_the_shim_is_compiled_once_and_a_broken_compiler_is_named(
    engine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = installation.shim()
    before = made.stat().st_mtime_ns
    assert installation.shim() == made and made.stat().st_mtime_ns == before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(MissingDependency, match="apt-get install"):
        installation.shim()


def test_the_shim_has_no_warnings(engine: None, tmp_path: Path) -> None:
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    gcc = installation.compiler()
    assert gcc is not None
    subprocess.run([gcc, *flags, "-o", str(tmp_path / "shim.so"), *map(str, installation.SHIM_SOURCES)], check=True)

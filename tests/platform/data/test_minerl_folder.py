"""Recordings of people in MineRL's format, which this test writes itself, as episodes of the diamond protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from oneiros.envs.minecraft.actions import NAMES
from oneiros.envs.minerl.items import equipment, kinds
from oneiros.platform.cli.main import run
from oneiros.platform.data import DataError, open_data
from oneiros.platform.data.filling import checked
from oneiros.platform.data.minerl_folder import minerl_spaces

ITEMS = ("log", "planks", "wooden_pickaxe", "torch")
KEYS = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint")
BEFORE = 3
"""Pictures of a video from before the first recorded step."""


def recorded(steps: int, separator: str = "$", **given: Any) -> dict[str, np.ndarray]:
    """Nothing happens but what is given: columns of actions, items, ``reward`` and ``hand``."""
    columns: dict[str, np.ndarray] = {"reward": np.asarray(given.get("reward", np.zeros(steps)), np.float32)}
    for key in KEYS:
        columns[f"action${key}"] = np.asarray(given.get(key, np.zeros(steps)), np.int64)
    columns["action$camera"] = np.asarray(given.get("camera", np.zeros((steps, 2))), np.float32)
    for key in ("craft", "nearbyCraft", "nearbySmelt", "place", "equip"):
        columns[f"action${key}"] = np.asarray(given.get(key, ["none"] * steps))
    for item in ITEMS:
        columns[f"observation$inventory${item}"] = np.asarray(given.get(item, np.zeros(steps + 1)), np.int64)
    names = given.get("hand", ["none"] * (steps + 1))
    columns[f"observation$equipped_items{separator}mainhand{separator}type"] = np.asarray(names)
    return columns


def write(folder: Path, columns: dict[str, np.ndarray], size: tuple[int, int] = (64, 64), missing: int = 0) -> Path:
    """A recording whose picture number ``i`` is as bright as ``40 + 10 i``, counted from the first step's."""
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "rendered.npz", **columns)
    writer = imageio_ffmpeg.write_frames(str(folder / "recording.mp4"), size, fps=20, macro_block_size=2, quality=9)
    writer.send(None)
    for number in range(-BEFORE, len(columns["reward"]) + 1 - missing):
        writer.send(np.full((size[1], size[0], 3), 40 + 10 * number, np.uint8))
    writer.close()
    (folder / "metadata.json").write_text("{}")
    return folder


def episode(folder: Path) -> Any:
    data = open_data(folder)
    assert (data.kind, data.env) == ("minerl", "minerl/diamond")
    (only,) = list(checked(data))
    return only


def actions(folder: Path, **given: Any) -> list[str]:
    steps = len(next(iter(given.values())))
    return [NAMES[number] for number in episode(write(folder, recorded(steps, **given))).actions]


def test_pictures_belong_to_their_steps_counted_from_the_end(tmp_path: Path) -> None:
    read = episode(write(tmp_path / "one", recorded(6)))
    assert read.observations["image"].shape == (7, 64, 64, 3) and read.observations["image"].dtype == np.uint8
    assert np.allclose(read.observations["image"].mean(axis=(1, 2, 3)), 40 + 10 * np.arange(7), atol=4)
    large = episode(write(tmp_path / "two", recorded(2), size=(256, 192)))
    assert large.observations["image"].shape == (3, 64, 64, 3)


def test_rewards_are_the_protocols(tmp_path: Path) -> None:
    columns = recorded(
        5,
        reward=[1, 2, 0, 1024, 0],
        log=[0, 1, 0, 1, 0, 0],
        planks=[0, 0, 4, 4, 4, 4],
        torch=[0, 0, 7, 7, 7, 7],
        hand=["none", "air", "log", "torch", "wooden_pickaxe", "other"],
    )
    read = episode(write(tmp_path / "one", columns))
    seen = read.observations
    # Its own rewards are 1, 2, ..., 1,024; here each milestone pays 1, a second log nothing.
    assert read.rewards.tolist() == [1, 1, 0, 1, 0] and not read.terminated
    assert seen["inventory"][:, kinds().index("log")].tolist() == [0, 1, 0, 1, 0, 0]
    assert seen["inventory_max"][:, kinds().index("log")].tolist() == [0, 1, 1, 1, 1, 1]
    assert seen["inventory"][:, kinds().index("diamond")].tolist() == [0, 0, 0, 0, 1, 1]
    assert [equipment()[place] for place in seen["equipped"].argmax(1)] == columns[
        "observation$equipped_items$mainhand$type"
    ].tolist()
    assert (seen["health"] == 1).all() and seen["health"].shape == (6, 1)


def test_one_step_becomes_the_first_action_that_applies(tmp_path: Path) -> None:
    held = {"attack": [1, 0, 0, 0, 1], "jump": [0, 1, 0, 0, 0], "forward": [1, 1, 1, 0, 1], "left": [0, 0, 1, 1, 0]}
    held |= {"craft": ["none", "none", "none", "none", "planks"]}
    assert actions(tmp_path / "one", **held) == ["attack", "jump", "forward", "left", "craft_planks"]
    commands = {"nearbyCraft": ["stone_pickaxe", "wooden_axe"], "equip": ["none", "iron_pickaxe"]}
    # The protocol has no axe: that step is what else was done in it.
    assert actions(tmp_path / "two", **commands) == ["craft_stone_pickaxe", "equip_iron_pickaxe"]
    others = {"place": ["dirt", "torch", "furnace"], "nearbySmelt": ["none", "coal", "none"], "sneak": [0, 1, 0]}
    assert actions(tmp_path / "three", **others) == ["place_dirt", "noop", "place_furnace"]


def test_the_cameras_movement_is_added_up_to_turns(tmp_path: Path) -> None:
    camera = [[0, 5], [0, 5], [0, 5], [0, 0], [-8, 0], [0, 0], [0, -40], [0, 0], [0, 0], [0, 0]]
    walked = actions(tmp_path / "one", camera=camera, forward=[1] * 10)
    turns = ["forward", "turn_right", "forward", "forward", "turn_up", "forward"]
    # 15 of 15 degrees to the right; 15 up, of 8; 45 to the left, of 40, one after another.
    assert walked == [*turns, "turn_left", "turn_left", "turn_left", "forward"]


def test_older_names_are_read_too(tmp_path: Path) -> None:
    read = episode(write(tmp_path / "one", recorded(1, separator=".", hand=["log", "log2"])))
    assert read.observations["equipped"][:, kinds().index("log")].tolist() == [1, 1]


def test_a_folder_of_recordings_is_imported(tmp_path: Path) -> None:
    write(tmp_path / "data" / "v4_b", recorded(4))
    write(tmp_path / "data" / "v4_a", recorded(3, log=[0, 1, 1, 1]))
    assert run(["data", "import", str(tmp_path / "data"), "--to", str(tmp_path / "npz")]) == 0
    data = open_data(tmp_path / "npz")
    assert (data.kind, data.env) == ("npz", "minerl/diamond")
    assert (data.observation_space, data.action_space) == minerl_spaces()
    read = list(checked(data))
    assert [one.steps for one in read] == [3, 4] and read[0].rewards.tolist() == [1, 0, 0]


def test_a_recording_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    short = write(tmp_path / "short", recorded(9), missing=5)
    with pytest.raises(DataError, match=r"short.*8 pictures.*10 observations"):
        episode(short)
    columns = recorded(3)
    del columns["action$camera"]
    with pytest.raises(DataError, match=r"blind.*action/camera"):
        episode(write(tmp_path / "blind", columns))
    uneven = recorded(3) | {"action$jump": np.zeros(2, np.int64)}
    with pytest.raises(DataError, match=r"uneven.*action/jump.*2 rows"):
        episode(write(tmp_path / "uneven", uneven))
    (short / "recording.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"short cannot be read: recording\.mp4 is no video: Error opening"):
        episode(short)

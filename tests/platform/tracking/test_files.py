import json
import tracemalloc

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oneiros.platform.config import ConfigError, Layer, resolve
from oneiros.platform.tracking import (
    MetricsFile,
    RunDirectory,
    Tracker,
    VideoWriter,
    provenance,
    read_metrics,
    write_video,
)
from oneiros.platform.tracking.line_file import LineFile
from oneiros.platform.tracking.run_directory import default_path


def test_metrics_are_lines_of_strict_json(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append({"loss": 0.25, "return": float("nan"), "grad": float("inf")}, env_steps=7, when=12.5)
    (row,) = [json.loads(line, parse_constant=pytest.fail) for line in file.path.read_text().splitlines()]
    assert row == {"env_steps": 7, "time": 12.5, "loss": 0.25, "return": None, "grad": None}


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).append({"loss": 1.0}, env_steps=1)
    with path.open("a") as file:
        file.write('{"env_steps": 2, "lo')
    MetricsFile(path).append({"loss": 3.0}, env_steps=3)
    assert [row["env_steps"] for row in read_metrics(path)] == [1, 3]


def test_what_a_resumed_run_rolled_back_is_left_out(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for steps, loss in [(10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0), (40, 5.0)]:
        file.append({"loss": loss}, env_steps=steps)
    assert [(row["env_steps"], row["loss"]) for row in read_metrics(file.path)] == [
        (10, 1.0), (20, 2.0), (20, 4.0), (40, 5.0),
    ]  # fmt: skip


def test_a_resumed_run_repeats_no_record(new_run):
    directory, config = new_run()
    file = MetricsFile(directory.metrics_file)
    for steps in (10, 20, 30):
        file.append({"loss": 1.0}, env_steps=steps)
    directory.resume(config, {}, 15)
    for steps in (20, 30, 40):
        file.append({"loss": 2.0}, env_steps=steps)
    assert [(row["env_steps"], row["loss"]) for row in read_metrics(file.path)] == [
        (10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0),
    ]  # fmt: skip


def test_a_full_disk_costs_records_and_not_the_run(tmp_path, caplog):
    file = MetricsFile(tmp_path / "gone" / "metrics.jsonl")
    for steps in range(3):
        file.append({"loss": 1.0}, env_steps=steps)
    assert file.lost == 3 and len(caplog.records) == 1


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")), max_size=20), st.integers(1, 7)
)
def test_a_reader_that_starts_anywhere_reads_every_line_once(tmp_path_factory, lines, most):
    file = LineFile(tmp_path_factory.mktemp("lines") / "file")
    read, offset = [], 0
    for index, line in enumerate(lines):
        file.append(line)
        if index % 3 == 0:
            for text, after in file.read(offset, most):
                read.append(text)
                offset = after
    while batch := list(file.read(offset, most)):
        read += [text for text, _ in batch]
        offset = batch[-1][1]
    assert read == lines


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_a_video_plays_back_its_frames(tmp_path, ending):
    frames = np.zeros((6, 31, 63, 3), np.uint8)
    frames[:] = np.linspace(0, 250, 6, dtype=np.uint8)[:, None, None, None]
    path = write_video(tmp_path / "deep" / f"film.{ending}", frames, fps=10)
    shown = imageio.imread(path)
    assert shown.shape == (6, 156, 316, 3)
    assert shown[:, :155, :315].mean(axis=(1, 2, 3)) == pytest.approx(np.linspace(0, 250, 6), abs=4)


def test_a_film_takes_the_memory_of_a_few_of_its_frames(tmp_path):
    frame = np.zeros((64, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "film.mp4") as film:
        film.add(frame)
        tracemalloc.start()
        try:
            for brightness in range(600):
                film.add(frame + np.uint8(brightness % 256))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert not film.path.exists()
    # 600 frames as they are written take 30 MB.
    assert peak < 2e6
    assert imageio.imread(film.path).shape == (601, 128, 128, 3)
    assert list(tmp_path.iterdir()) == [film.path]


def test_a_film_that_is_begun_anew_or_given_up(tmp_path):
    with VideoWriter(tmp_path / "film.gif") as film:
        for brightness in (250, 200, 0, 100):
            if not brightness:
                film.restart()
            film.add(np.full((128, 16, 3), brightness, np.uint8))
    assert imageio.imread(film.path).mean(axis=(1, 2, 3)) == pytest.approx([0, 100], abs=4)
    with pytest.raises(RuntimeError, match="on purpose"), VideoWriter(tmp_path / "given-up.mp4") as film:
        film.add(np.zeros((16, 16, 3), np.uint8))
        raise RuntimeError("on purpose")
    with VideoWriter(tmp_path / "empty.mp4") as film:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize(
    "frames", [np.zeros((6, 31, 63, 1), np.uint8), np.zeros((6, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8)]
)
def test_what_is_no_video_is_refused_by_shape(tmp_path, frames):
    with pytest.raises(ValueError, match="a video is uint8"):
        write_video(tmp_path / "film.mp4", frames)


def test_a_run_directory_is_made_once_and_found_again(tmp_path):
    place = {"env": "CartPole-v1", "run_dir": str(tmp_path / "a" / "b"), "preset": None}
    resolved = resolve([Layer("test", place)])
    run = RunDirectory.create(resolved, provenance(["oneiros", "train"]))
    assert RunDirectory.open(run.path).config() == resolved.config
    origin = json.loads(run.provenance_file.read_text())
    assert origin["command"] == "oneiros train" and origin["origins"]["env"] == "test"
    assert origin["machine"]["cores"] >= 1 and "torch" in origin["versions"]
    with pytest.raises(ConfigError, match="already holds a run: continue it with 'oneiros resume"):
        RunDirectory.create(resolved, {})
    moved = run.path.rename(tmp_path / "moved")
    assert RunDirectory.open(moved).config().directory == moved
    with pytest.raises(ConfigError, match=r"is no run directory: it has no config\.yaml"):
        RunDirectory.open(tmp_path)
    with pytest.raises(ConfigError, match="there is no such folder"):
        RunDirectory.open(tmp_path / "nowhere")


def test_a_new_folder_is_named_by_its_run_and_taken_by_no_other(tmp_path):
    first = default_path("dmc/walker walk", "dreamerv3", tmp_path)
    assert first.parent == tmp_path and first.name.startswith("dmc_walker_walk-dreamerv3-")
    first.mkdir()
    assert default_path("dmc/walker walk", "dreamerv3", tmp_path) != first


def test_without_mlflow_the_files_are_the_record(new_run, monkeypatch, caplog):
    monkeypatch.setattr("oneiros.platform.tracking.tracker.find_spec", lambda name: None)
    directory, config = new_run()
    tracker = Tracker(directory, config)
    tracker.record({"loss": 1.0}, env_steps=1)
    tracker.video("episode", np.zeros((2, 8, 8, 3), np.uint8), env_steps=1)
    assert tracker.close() and tracker.uri is None and tracker.run_id is None
    assert read_metrics(directory.metrics_file)[0]["loss"] == 1.0
    assert (directory.media / "episode" / "000000000001.mp4").stat().st_size > 0
    assert not directory.outbox_file.exists()
    assert [record.message for record in caplog.records] == [
        f"MLflow is not installed: the record is {directory.metrics_file} alone (pip install mlflow)"
    ]

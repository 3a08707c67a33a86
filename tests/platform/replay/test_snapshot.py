"""Saves copy only what changed, are whole or nothing, run no code, and come back exactly."""

from __future__ import annotations

import json
import pickle
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from oneiros.platform.replay import CorruptChunk, Replay, ReplayMismatch

OPTIONS = {"capacity": 1000, "length": 4, "context": 1, "chunk_rows": 16, "batch": 8}


def inodes(folder: Path, pattern: str) -> set[int]:
    return {path.stat().st_ino for path in folder.glob(pattern)}


def filled(tools: SimpleNamespace, directory: Path | None, **options: object) -> tuple[Replay, SimpleNamespace]:
    replay, source = Replay(tools.FIELDS, **{**OPTIONS, **options}, directory=directory), tools.Source()
    replay.add(source.chunk([0, 1], 40))
    return replay, source


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_save_copies_only_what_changed(tools: SimpleNamespace, tmp_path: Path, on_disk: bool) -> None:
    replay, source = filled(tools, tmp_path / "live" if on_disk else None)
    replay.save(tmp_path / "unfinished")
    # As a checkpoint manager does: the save gets its name once everything beside it is there too.
    (tmp_path / "unfinished").rename(tmp_path / "first")
    replay.add(source.chunk([0], 8))
    ids = next(iter(replay.chunks)) << 20 | np.arange(1, 5)[None]
    replay.write_back(ids, {"deter": np.ones((1, 4, 4), np.float16), "stoch": np.ones((1, 4, 2), np.uint8)})
    replay.save(tmp_path / "second")
    rows = [inodes(tmp_path / name, "*.rows") for name in ("first", "second")]
    latents = [inodes(tmp_path / name, "*.latents") for name in ("first", "second")]
    assert len(rows[0]) == len(latents[0]) == 6
    assert len(rows[0] & rows[1]) == (6 if on_disk else 5)
    assert len(latents[0] & latents[1]) == 4
    if on_disk:
        assert inodes(tmp_path / "live", "*.rows") == rows[1]
        assert not inodes(tmp_path / "live", "*.latents") & latents[1]
    shutil.rmtree(tmp_path / "first")
    replay.save(tmp_path / "third")
    assert inodes(tmp_path / "third", "*.latents") == latents[1]
    shutil.rmtree(tmp_path / "second")
    shutil.rmtree(tmp_path / "third")
    replay.save(tmp_path / "fourth")
    other = Replay(tools.FIELDS, **OPTIONS)
    other.load(tmp_path / "fourth")
    tools.assert_same_future(replay, other, source)


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_older_save_stays_what_it_was(tools: SimpleNamespace, tmp_path: Path, on_disk: bool) -> None:
    replay, source = filled(tools, tmp_path / "live" if on_disk else None)
    replay.save(tmp_path / "old")
    expected = {name: value.copy() for name, value in replay.sample(40, apart=True).items()}
    # Rows appended to shared chunks, latents rewritten, chunks evicted, and another replay living on from the save.
    for _ in range(60):
        replay.add(source.chunk([0, 1], 11))
    elsewhere = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path / "elsewhere")
    elsewhere.load(tmp_path / "old")
    elsewhere.add(tools.Source().chunk([0, 1], 30))
    rows = elsewhere.sample(40)["row_id"][:, 1:]
    elsewhere.write_back(
        rows, {"deter": np.ones((*rows.shape, 4), np.float16), "stoch": np.ones((*rows.shape, 2), np.uint8)}
    )
    again = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path / "again" if on_disk else None)
    again.load(tmp_path / "old")
    assert again.counters["quarantined"] == 0
    batch = again.sample(40, apart=True)
    for name, value in expected.items():
        np.testing.assert_array_equal(batch[name], value, err_msg=name)


def test_a_save_is_exact_between_memory_and_disk(tools: SimpleNamespace, tmp_path: Path) -> None:
    mixture = {"uniform": 0.5, "priority": 0.3, "recency": 0.2}
    replay, source = filled(tools, tmp_path / "live", mixture=mixture)
    for _ in range(5):
        batch = replay.sample()
        replay.prioritise(batch["row_id"], np.arange(8.0))
    other = Replay(tools.FIELDS, **OPTIONS, mixture=mixture, seed=99)
    replay.save(tmp_path / "save")
    other.load(tmp_path / "save")
    tools.assert_same_future(replay, other, source)


def test_a_replay_in_use_forgets_what_it_held(tools: SimpleNamespace, tmp_path: Path) -> None:
    mixture = {"uniform": 0.2, "priority": 0.6, "recency": 0.2}
    replay, source = filled(tools, None, mixture=mixture)
    replay.save(tmp_path / "save")
    used = Replay(tools.FIELDS, **OPTIONS, mixture=mixture, directory=tmp_path / "used")
    other = tools.Source()
    for _ in range(10):
        used.add(other.chunk(range(5), 30))
        used.prioritise(used.sample()["row_id"], np.full(8, 1e6))
    used.load(tmp_path / "save")
    tools.assert_same_future(replay, used, source)


def test_a_save_that_was_cut_short_is_no_save(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, _ = filled(tools, None)
    replay.save(tmp_path / "save")
    (tmp_path / "save" / "replay.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no whole replay: replay.json is missing"):
        replay.load(tmp_path / "save")
    assert len(replay) == 80


def test_saving_twice_into_one_directory_is_refused(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, _ = filled(tools, None)
    replay.save(tmp_path / "save")
    with pytest.raises(FileExistsError, match="is not empty"):
        replay.save(tmp_path / "save")


def test_a_damaged_index_is_named(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, _ = filled(tools, None)
    replay.save(tmp_path / "save")
    index = tmp_path / "save" / "replay.json"
    intact = index.read_text()
    for damaged in (intact.replace("clock", "clack", 1), intact[:-30], "[]", "\0" * 50):
        index.write_text(damaged)
        with pytest.raises(CorruptChunk, match=r"replay.json is damaged"):
            replay.load(tmp_path / "save")
    assert len(replay) == 80


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_a_damaged_chunk_of_a_save_is_left_out(
    tools: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, on_disk: bool, how: str
) -> None:
    mixture = {"uniform": 0.4, "priority": 0.6}
    replay, source = filled(tools, None, mixture=mixture)
    replay.save(tmp_path / "save")
    victim = tmp_path / "save" / "chunk-00000001.rows"
    content = bytearray(victim.read_bytes())
    if how == "missing":
        victim.unlink()
    else:
        content[4100] ^= 1
        victim.write_bytes(content if how == "flipped" else content[:4500])
    other = Replay(tools.FIELDS, **OPTIONS, mixture=mixture, directory=tmp_path / "live" if on_disk else None)
    other.load(tmp_path / "save")
    assert len(caplog.records) == 1
    assert "chunk-00000001.rows" in caplog.records[0].message
    assert other.stats()["quarantined"] == 1
    assert len(other) == 64
    assert set(tools.indexed_windows(other)) == tools.possible_windows(other)
    for _ in range(20):
        tools.check_batch(other, other.sample(), source)
    other.add(source.chunk([0, 1], 10))
    assert set(tools.indexed_windows(other)) == tools.possible_windows(other)


def test_damaged_latents_of_a_save_begin_anew(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, source = filled(tools, None)
    replay.save(tmp_path / "save")
    victim = tmp_path / "save" / "chunk-00000000.latents"
    content = bytearray(victim.read_bytes())
    content[4100] ^= 1
    victim.write_bytes(content)
    replay.load(tmp_path / "save")
    assert replay.stats()["latents_lost"] == 1
    batch = replay.sample(100)
    tools.check_batch(replay, batch, source)
    assert 0 < batch["latent_valid"].sum() < 100


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def test_nothing_in_a_save_is_executed(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    mixture = {"priority": 1.0}
    replay, source = filled(tools, None, mixture=mixture)
    replay.save(tmp_path / "save")
    np.savez(tmp_path / "save" / "selectors.npz", **{"priority/weights": np.array([Bomb()], object)})
    replay.load(tmp_path / "save")
    assert "priorities anew" in caplog.text
    tools.check_batch(replay, replay.sample(), source)
    for name in ("chunk-00000000.rows", "chunk-00000001.latents", "selectors.npz"):
        (tmp_path / "save" / name).write_bytes(pickle.dumps(Bomb()))
    replay.load(tmp_path / "save")
    assert replay.stats()["quarantined"] == 1
    (tmp_path / "save" / "replay.json").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CorruptChunk):
        replay.load(tmp_path / "save")
    assert not (tmp_path / "exploded").exists()


def test_a_forged_index_cannot_reach_outside(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, _ = filled(tools, None)
    replay.save(tmp_path / "save")
    index = tmp_path / "save" / "replay.json"
    state = json.loads(json.loads(index.read_text())["state"])
    state["chunks"][0]["count"] = 1 << 40
    forged = json.dumps(state)
    index.write_text(json.dumps({"crc": zlib.crc32(forged.encode()), "state": forged}))
    replay.load(tmp_path / "save")
    assert replay.stats()["quarantined"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 5}, "has length 4, this one 5"),
        ({"context": 0}, "has context 1, this one 0"),
        ({"latent_stride": 2}, "has stride 1, this one 2"),
    ],
)
def test_other_windows_are_refused(tools: SimpleNamespace, tmp_path: Path, change: dict, message: str) -> None:
    replay, _ = filled(tools, None)
    replay.save(tmp_path / "save")
    other = Replay(tools.FIELDS, **{**OPTIONS, **change})
    with pytest.raises(ReplayMismatch, match=message):
        other.load(tmp_path / "save")


def test_another_capacity_and_grain_fit(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay, source = filled(tools, None)
    replay.save(tmp_path / "save")
    other = Replay(tools.FIELDS, **{**OPTIONS, "capacity": 50, "chunk_rows": 8})
    other.load(tmp_path / "save")
    assert len(other) <= 50
    other.add(source.chunk([0, 1], 20))
    assert len(other) <= 50
    assert set(tools.indexed_windows(other)) == tools.possible_windows(other)
    tools.check_batch(other, other.sample(30), source)


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("live", [False, True])
def test_shards_are_shared_out_anew(tools: SimpleNamespace, tmp_path: Path, live: bool, stride: int) -> None:
    options = {**OPTIONS, "latent_stride": stride}
    source = tools.Source()
    for shard in range(2):
        replay = Replay(tools.FIELDS, **options, directory=tmp_path / f"live-{shard}")
        for _ in range(6):
            replay.add(source.chunk(range(4 * shard, 4 * shard + 4), 9))
        replay.save(tmp_path / f"save-{shard}")
        replay.close()
    rows: set = set()
    for part in range(3):
        joined = Replay(tools.FIELDS, **{**options, "chunk_rows": 20}, directory=tmp_path / f"part-{part}")
        added = sum(joined.absorb(tmp_path / f"{'live' if live else 'save'}-{shard}", part, 3) for shard in range(2))
        assert added == len(joined) > 0
        assert len(joined.queue) == 0
        own = tools.stored_rows(joined)
        assert not rows & own.keys()
        rows |= own.keys()
        assert set(tools.indexed_windows(joined)) == tools.possible_windows(joined)
        batch = joined.sample(50)
        tools.check_batch(joined, batch, source)
        assert batch["latent_valid"].any()
    assert len(rows) == 8 * 54

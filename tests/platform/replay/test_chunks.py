"""What is on disk survives a killed process; what is damaged is set aside; a full disk is no end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from oneiros.platform.replay import DirectoryInUse, Replay, ReplayMismatch, blocks, directory

OPTIONS = {"capacity": 1000, "length": 4, "context": 1, "chunk_rows": 16, "batch": 8}

WRITER = """
import importlib.util, itertools, sys
import numpy as np
spec = importlib.util.spec_from_file_location("experience", sys.argv[1])
experience = importlib.util.module_from_spec(spec)
sys.modules["experience"] = experience
spec.loader.exec_module(experience)
from oneiros.platform.replay import Replay
replay = Replay(experience.FIELDS, capacity=5000, length=4, context=1, chunk_rows=64, directory=sys.argv[2])
source = experience.Source()
for turn in itertools.count():
    added = replay.add(source.chunk(range(3), 1 + turn % 40))
    batch = replay.sample() if replay.ready else None
    if batch is not None:
        rows = batch["row_id"][:, 1:]
        deter, stoch = (experience.derived(batch["obs"])[f"latent/{name}"][:, 1:] for name in ("deter", "stoch"))
        replay.write_back(rows, {"deter": deter, "stoch": stoch})
    print(added, flush=True)
"""


def test_a_killed_process_loses_only_the_rows_in_flight(tools: SimpleNamespace, tmp_path: Path) -> None:
    experience = Path(__file__).with_name("conftest.py")
    for attempt in range(2):
        live = tmp_path / str(attempt)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(experience), str(live)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(12 + 5 * attempt)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().split()]
        assert writer.wait() == -signal.SIGKILL
        replay = Replay(tools.FIELDS, **{**OPTIONS, "capacity": 5000}, directory=live)
        assert sum(acknowledged) <= len(replay) < sum(acknowledged) + 3 * 41
        assert replay.counters["recovered"] == len(replay)
        assert replay.counters["quarantined"] == 0
        assert set(tools.indexed_windows(replay)) == tools.possible_windows(replay)
        for _ in range(5):
            tools.check_batch(replay, replay.sample(), tools.Source())
        replay.close()


def test_rows_added_after_recovery_join_nothing_before(tools: SimpleNamespace, tmp_path: Path) -> None:
    source = tools.Source()
    replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    replay.add(source.chunk([0], 20))
    replay.close()
    replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    source.interrupt(0)
    replay.add(source.chunk([0], 20))
    assert len(replay) == 40
    assert replay.windows.total == 2 * 16
    tools.check_batch(replay, replay.sample(64), source)


def fill(tools: SimpleNamespace, path: Path, rows: int = 80) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, directory=path)
    replay.add(tools.Source().chunk([0], rows))
    replay.close()


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size - 100)
    elif how == "empty":
        os.truncate(path, 0)
    else:
        content = bytearray(path.read_bytes())
        header = blocks.Header.decode(bytes(content), path.name)
        first, length = {
            "header": (40, 20),
            "journal": (header.journal_offset, 2 * header.slot_size),
            "data": (header.offsets[2] + 5, 1),
        }[how]
        for place in range(first, first + length):
            content[place] ^= 0x10
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "header", "journal", "data"])
def test_a_damaged_chunk_is_set_aside_and_the_rest_goes_on(
    tools: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    fill(tools, tmp_path)
    damage(tmp_path / "chunk-00000002.rows", how)
    with caplog.at_level(logging.WARNING):
        replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    assert [record.message for record in caplog.records if "chunk-00000002.rows" in record.message]
    assert len(caplog.records) == 1
    assert replay.stats()["quarantined"] == 1
    assert (tmp_path / "chunk-00000002.rows.corrupt").exists()
    assert len(replay) == 64
    assert set(tools.indexed_windows(replay)) == tools.possible_windows(replay)
    assert replay.windows.total == (32 - 4) * 2
    tools.check_batch(replay, replay.sample(200), tools.Source())
    replay.add(tools.Source().chunk([1], 30))
    assert not {path.name for path in tmp_path.iterdir()} & {"chunk-00000002.rows", "chunk-00000002.latents"}
    replay.close()
    assert len(Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)) == 94


def test_damaged_latents_cost_only_the_latents(tools: SimpleNamespace, tmp_path: Path) -> None:
    fill(tools, tmp_path)
    damage(tmp_path / "chunk-00000001.latents", "truncated")
    replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    assert (len(replay), replay.counters["latents_lost"]) == (80, 1)
    batch = replay.sample(300)
    tools.check_batch(replay, batch, tools.Source())
    lost = (batch["obs"][:, 0, 2] >= 16) & (batch["obs"][:, 0, 2] < 32)
    np.testing.assert_array_equal(batch["latent_valid"], ~lost)
    assert lost.any()


def test_half_made_files_are_removed(tools: SimpleNamespace, tmp_path: Path) -> None:
    fill(tools, tmp_path, 16)
    (tmp_path / "chunk-00000007.latents").write_bytes(b"never had rows")
    (tmp_path / "chunk-00000007.rows.new").write_bytes(b"never finished")
    replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chunk-00000000.latents",
        "chunk-00000000.rows",
        "lock",
    ]
    assert len(replay) == 16


def test_the_chunks_of_another_environment_are_refused(tools: SimpleNamespace, tmp_path: Path) -> None:
    fill(tools, tmp_path)
    fields = {name: field for name, field in tools.FIELDS.items() if name != "camera/left"}
    with pytest.raises(ReplayMismatch, match="'camera/left' is unknown here"):
        Replay(fields, **OPTIONS, directory=tmp_path)


def test_the_latents_of_another_model_are_left_behind(tools: SimpleNamespace, tmp_path: Path) -> None:
    fill(tools, tmp_path)
    bigger = {**tools.FIELDS, "latent/deter": type(tools.FIELDS["obs"])((9,), np.dtype(np.float16))}
    replay = Replay(bigger, **OPTIONS, directory=tmp_path)
    assert len(replay) == 80
    batch = replay.sample()
    assert batch["latent/deter"].shape == (8, 1, 9)
    assert not batch["latent_valid"].any()


def test_one_directory_has_one_replay(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    with pytest.raises(DirectoryInUse, match="this process"):
        Replay(tools.FIELDS, **OPTIONS, directory=tmp_path)
    opening = (
        "import sys; from pathlib import Path; from oneiros.platform.replay.directory import Directory;"
        "Directory(Path(sys.argv[1]), 10)"
    )
    command = [sys.executable, "-c", opening, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "in use by another process" in refused.stderr
    replay.close()
    assert subprocess.run(command, check=False).returncode == 0


def test_evicted_chunks_leave_the_disk(tools: SimpleNamespace, tmp_path: Path) -> None:
    replay = Replay(tools.FIELDS, **{**OPTIONS, "capacity": 64}, directory=tmp_path)
    source = tools.Source()
    for _ in range(20):
        replay.add(source.chunk([0, 1], 13))
    files = {path.name for path in tmp_path.glob("chunk-*")}
    assert len(files) == 2 * len(replay.chunks) <= 2 * 6
    stats = replay.stats()
    assert stats["disk_bytes"] == sum(path.stat().st_size for path in tmp_path.glob("chunk-*"))
    assert stats["memory_bytes"] == 0


def disk_full(monkeypatch: pytest.MonkeyPatch, chunks_that_fit: int, path: Path) -> None:
    real = blocks.allocate

    def allocate(descriptor: int, size: int) -> None:
        if len(list(path.glob("chunk-*.rows"))) >= chunks_that_fit:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, size)

    monkeypatch.setattr(blocks, "allocate", allocate)


def test_a_full_disk_costs_the_oldest_chunks(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk_full(monkeypatch, 3, tmp_path)
    replay, source = Replay(tools.FIELDS, **OPTIONS, directory=tmp_path), tools.Source()
    for _ in range(10):
        assert replay.add(source.chunk([0], 20)) == 20
    assert len(replay.chunks) == 3
    assert replay.stats()["evicted"] == 200 - len(replay)
    assert replay.stats()["disk_full"] >= 1
    assert len([record for record in caplog.records if "disk full" in record.message]) == 1
    tools.check_batch(replay, replay.sample(64), source)
    assert set(tools.indexed_windows(replay)) == tools.possible_windows(replay)


def test_a_full_disk_whose_chunks_a_checkpoint_holds_costs_new_rows(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = tmp_path / "live"
    replay, source = Replay(tools.FIELDS, **OPTIONS, directory=live), tools.Source()
    replay.add(source.chunk([0], 48))
    replay.save(tmp_path / "save")
    disk_full(monkeypatch, 3, live)
    assert replay.add(source.chunk([0], 20)) == 0
    assert replay.stats()["dropped"] == 20
    assert len(replay) == 48
    monkeypatch.undo()
    assert replay.add(source.chunk([0], 20)) == 20
    # The rows that were lost leave a gap which nothing bridges.
    assert replay.windows.total == 44 + 16
    tools.check_batch(replay, replay.sample(64), source)
    assert len([record for record in caplog.records if "disk full" in record.message]) == 1


def test_files_are_few_enough_for_the_process(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(directory.resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(directory.resource, "setrlimit", lambda _, limit: limits.append(limit))
    monkeypatch.setattr(directory.sys, "version_info", (3, 12))
    windows = {"capacity": 5_000_000, "length": 4, "context": 1}
    with pytest.raises(ValueError, match=r"may map 10278 chunks, but this process only 1536: raise chunk_rows"):
        Replay(tools.FIELDS, **windows, chunk_rows=1024, directory=tmp_path)
    replay = Replay(tools.FIELDS, **windows, directory=tmp_path)
    assert replay.chunk_rows > 5_000_000 * 2 / 1536
    assert limits == [(2 * replay.max_chunks + 1024, 4096)]
    assert replay.max_chunks <= 1536
    assert Replay(tools.FIELDS, **windows).chunk_rows == replay.chunk_rows

"""A disk that really is full: a file system of a few megabytes."""

import shutil
import subprocess

import pytest
from oneiros.platform.checkpoint import CheckpointStore, CheckpointWriteError, Retention, open_checkpoint
from oneiros.platform.training.engine import open_engine
from tiny_run import tiny

MEGABYTES = 24


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(disk)]
    made = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=60)


def test_a_full_disk_costs_the_new_checkpoint_and_neither_the_old_one_nor_the_run(small_disk):
    store = CheckpointStore(small_disk / "checkpoints", Retention(last=1, best=0))
    engine = open_engine(tiny("CartPole-v1"))
    engine.step()
    engine.save(store.path(engine.env_steps))
    old, manifest = store.checkpoints()[0]

    with (small_disk / "others").open("wb") as others:
        others.write(bytes(shutil.disk_usage(small_disk).free - 200_000))
    engine.step()
    with pytest.raises(CheckpointWriteError, match="No space left"):
        engine.save(store.path(engine.env_steps))
    assert [path.name for path in (small_disk / "checkpoints").iterdir()] == [old.name]
    assert open_checkpoint(old) == manifest and store.latest() == old

    (small_disk / "others").unlink()
    updates = engine.step()["updates"]
    engine.save(store.path(engine.env_steps))
    assert open_checkpoint(store.latest()).counters["updates"] == updates > manifest.counters["updates"]
    other = open_engine(tiny("CartPole-v1"))
    other.restore(store.latest())
    assert len(other.core.replay) == len(engine.core.replay) == engine.env_steps + engine.loop.episodes.count
    assert other.step()["loss/dyn"] == engine.step()["loss/dyn"]
    other.close(), engine.close()

import errno
import json
import os
import shutil

import pytest
from gymnasium import spaces
from oneiros.platform.checkpoint import (
    CheckpointError,
    CheckpointStore,
    CheckpointWriteError,
    Description,
    Retention,
    open_checkpoint,
    read_manifest,
    require_algorithm,
    require_spaces,
)
from oneiros.platform.checkpoint.manifest import FORMAT

OBS, ACT = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)


def writer(steps, score=None, text="weights"):
    def write(directory):
        (directory / "learner").mkdir()
        (directory / "learner/agent.bin").write_text(f"{text} {steps}")
        (directory / "state.json").write_text("{}")
        return Description(
            "dreamerv3", {"env_steps": steps, "updates": steps // 8}, {"size": "1m"}, OBS, ACT, {"seed": 1}, score
        )

    return write


def names(store):
    return [manifest.env_steps for _, manifest in store.checkpoints()]


def test_what_was_written_is_found_and_verified(tmp_path):
    store = CheckpointStore(tmp_path)
    path = store.save(800, writer(800, score=3.5))
    manifest = open_checkpoint(path)
    assert store.latest() == path
    assert manifest.counters == {"env_steps": 800, "updates": 100} and manifest.score == 3.5
    assert set(manifest.files) == {"learner/agent.bin", "state.json"}


def test_retention_keeps_last_best_and_every(tmp_path):
    store = CheckpointStore(tmp_path, Retention(last=2, best=1, every=1000))
    for steps, score in [
        (300, 1.0),
        (600, 9.0),
        (900, 2.0),
        (1200, 3.0),
        (1500, 4.0),
        (2100, 5.0),
        (2400, None),
        (2700, 6.0),
    ]:
        store.save(steps, writer(steps, score))
    assert names(store) == [300, 600, 1200, 2100, 2400, 2700]
    assert read_manifest(store.best()).env_steps == 600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_last_only(tmp_path):
    store = CheckpointStore(tmp_path, Retention(last=1, best=0))
    for steps in (1, 2, 3):
        store.save(steps, writer(steps, score=-steps))
    assert names(store) == [3]


def test_what_was_just_written_stays_whatever_its_steps(tmp_path):
    """A run that went on from an older checkpoint comes to steps that newer, damaged ones have been at."""
    store = CheckpointStore(tmp_path, Retention(last=2, best=0))
    for steps in (500, 600):
        store.save(steps, writer(steps))
    path = store.save(100, writer(100))
    assert path.is_dir() and store.latest() == path
    assert names(store) == [600, 100]


def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(tmp_path):
    store = CheckpointStore(tmp_path, Retention(last=1))
    old = store.save(100, writer(100))

    def full(directory):
        (directory / "half").write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointWriteError, match="No space left"):
        store.save(200, full)
    with pytest.raises(CheckpointWriteError, match="No space left"):
        store.save(100, full)
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    open_checkpoint(old)


def test_a_crash_while_writing_is_swept_up_at_the_next_start(tmp_path):
    CheckpointStore(tmp_path).save(100, writer(100))
    child = os.fork()
    if child == 0:

        def die(directory):
            (directory / "half").write_text("half")
            os._exit(9)

        CheckpointStore(tmp_path).save(200, die)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    store = CheckpointStore(tmp_path)
    assert names(store) == [100] and len(list(tmp_path.iterdir())) == 1


def test_the_same_step_again_replaces(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(100, writer(100, text="old"))
    path = store.save(100, writer(100, text="new"))
    assert (path / "learner/agent.bin").read_text() == "new 100"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog, damage):
    store = CheckpointStore(tmp_path)
    older, newer = store.save(100, writer(100)), store.save(200, writer(200))
    victim = newer / "learner/agent.bin"
    match damage:
        case "flip":
            victim.write_text(victim.read_text().replace("w", "v"))
        case "truncate":
            victim.write_text("wei")
        case "remove":
            victim.unlink()
        case "manifest":
            (newer / "manifest.json").write_text('{"format": 1')
        case "no manifest":
            (newer / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="step-000000000200"):
        open_checkpoint(newer)
    assert store.latest() == older
    assert "step-000000000200" in caplog.text


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        CheckpointStore(tmp_path / "nowhere").latest()
    with pytest.raises(CheckpointError, match="no such directory"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_newer_format_is_refused_in_one_sentence(tmp_path):
    path = CheckpointStore(tmp_path).save(100, writer(100))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": FORMAT + 1}))
    with pytest.raises(CheckpointError, match="upgrade Oneiros"):
        read_manifest(path)


def test_a_manifest_cannot_reach_outside(tmp_path):
    path = CheckpointStore(tmp_path).save(100, writer(100))
    shutil.copy(path / "state.json", tmp_path / "outside.json")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../outside.json"] = manifest["files"]["state.json"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside itself"):
        open_checkpoint(path)


def test_other_spaces_and_algorithms_are_refused_in_one_sentence(tmp_path):
    path = CheckpointStore(tmp_path).save(100, writer(100))
    manifest = read_manifest(path)
    require_spaces(manifest, path, OBS, ACT)
    require_algorithm(manifest, path, "dreamerv3")
    with pytest.raises(CheckpointError, match=r"action space Discrete\(2\), but this environment has Discrete\(4\)"):
        require_spaces(manifest, path, OBS, spaces.Discrete(4))
    with pytest.raises(CheckpointError, match="'dreamerv3', not 'vmc'"):
        require_algorithm(manifest, path, "vmc")


@pytest.mark.parametrize("last, best, every", [(0, 1, 0), (1, -1, 0), (1, 1, -5)])
def test_a_policy_that_keeps_nothing_is_refused(last, best, every):
    with pytest.raises(ValueError, match="retention"):
        Retention(last, best, every)

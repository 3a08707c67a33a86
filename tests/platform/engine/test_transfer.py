"""Copies of a checkpoint on hosts that do not see the driver's disk are gone afterwards, whatever happened."""

import shutil
from pathlib import Path

import pytest
from oneiros.platform.engine import transfer
from oneiros.platform.engine.learner_calls import LearnerDied
from oneiros.platform.engine.transfer import Elsewhere, load_parts, save_parts


class Calls:
    """Two learners; the second sees another disk than the driver."""

    learners = 2

    def __init__(self, far):
        self.far, self.fails = far, False

    def call(self, method, arguments):
        if method == "elsewhere":
            return [None, Elsewhere("far", str(self.far))]
        for rank, given in enumerate(arguments):
            if method == "save":
                (Path(given["directory"]) / f"learner-{rank}").mkdir(parents=True)
            elif method == "discard" and given["copy"] is not None:
                shutil.rmtree(given["copy"])
            elif method == "load":
                assert (Path(given["directory"]) / f"learner-{rank}").is_dir()
        if method in ("save", "load") and self.fails:
            raise LearnerDied("gone")
        return [7, 7]

    def settle(self):
        pass


@pytest.fixture
def calls(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "this_host", lambda: "here")
    monkeypatch.setattr(
        transfer, "sync_dir_between_nodes", lambda _, source, __, target, **___: shutil.copytree(source, target)
    )
    (tmp_path / "far").mkdir()
    return Calls(tmp_path / "far")


def test_parts_come_and_go_and_leave_nothing_behind(calls, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    assert save_parts(calls, tmp_path / "checkpoint") == 7
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"learner-0", "learner-1"}
    load_parts(calls, "load", tmp_path / "checkpoint", 2)
    assert not list(calls.far.iterdir())


@pytest.mark.parametrize("dies", ["while it saves", "while its part is copied"])
def test_a_learner_that_dies_leaves_no_copies_of_others(calls, tmp_path, monkeypatch, dies):
    def refuse(*_, **__):
        raise transfer.RayError("host gone")

    (tmp_path / "checkpoint").mkdir()
    calls.fails = dies == "while it saves"
    if not calls.fails:
        monkeypatch.setattr(transfer, "sync_dir_between_nodes", refuse)
    with pytest.raises(LearnerDied):
        save_parts(calls, tmp_path / "checkpoint")
    assert not list(calls.far.iterdir())

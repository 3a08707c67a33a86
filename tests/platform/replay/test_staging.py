"""Staged batches are the sampled ones, on their device, in order, whatever else goes on."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oneiros.platform.replay import Replay, ReplayNotReady
from oneiros.platform.replay.staging import Staged, Stager

OPTIONS = {"capacity": 400, "length": 4, "context": 1, "chunk_rows": 16, "batch": 8}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def as_arrays(staged: Staged) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in staged.rows.items()} | {"row_id": staged.row_id}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threaded", [False, True])
def test_staged_batches_are_the_sampled_ones(tools: SimpleNamespace, device: str, threaded: bool) -> None:
    twins = [Replay(tools.FIELDS, **OPTIONS), Replay(tools.FIELDS, **OPTIONS)]
    for twin in twins:
        twin.add(tools.Source().chunk([0, 1], 100))
    with Stager(twins[0], device, threaded=threaded, ahead=2) as stager:
        for _ in range(12):
            staged, expected = as_arrays(stager.next()), twins[1].sample()
            assert staged.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_array_equal(staged[name], value, err_msg=name)
                assert staged[name].dtype == value.dtype


def test_without_a_thread_each_write_back_is_seen_at_once(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **{**OPTIONS, "capacity": 16, "online": False})
    replay.add(tools.Source().chunk([0], 6))
    with Stager(replay, threaded=False) as stager:
        for turn in range(5):
            ids = np.arange(6, dtype=np.int64)[None]
            value = np.full((1, 6, 4), turn, np.float16)
            replay.write_back(ids, {"deter": value, "stoch": np.zeros((1, 6, 2), np.uint8)})
            assert (stager.next().rows["latent/deter"] == turn).all()


def test_batches_lie_ready_and_no_more_than_asked(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)
    with Stager(replay, ahead=3) as stager:
        with pytest.raises(ReplayNotReady):
            stager.next()
        replay.add(tools.Source().chunk([0], 50))
        deadline = time.monotonic() + 20
        while replay.counters["sampled"] < 3 * 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert replay.counters["sampled"] == 3 * 8
        stager.next()
        while replay.counters["sampled"] < 4 * 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert replay.counters["sampled"] == 4 * 8


def test_a_batch_apart_changes_nothing_of_those_that_follow(tools: SimpleNamespace) -> None:
    looked_at, other = (Replay(tools.FIELDS, **OPTIONS) for _ in range(2))
    source = tools.Source()
    chunk = source.chunk([0], 50)
    looked_at.add(chunk), other.add(chunk)
    with Stager(looked_at, threaded=False) as stager:
        tools.check_batch(looked_at, as_arrays(stager.sample_apart()), source)
        assert len(looked_at.queue) == 10
    assert looked_at.stats() == other.stats()
    tools.assert_same_future(looked_at, other, source)


def test_a_failing_worker_is_not_silent(tools: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)

    def fail(**_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(replay, "sample", fail)
    replay.add(tools.Source().chunk([0], 50))
    with Stager(replay) as stager, pytest.raises(RuntimeError, match="stager failed: the disk is gone"):
        stager.next()


def test_a_closed_stager_says_so_and_leaves_no_thread(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)
    replay.add(tools.Source().chunk([0], 50))
    stager = Stager(replay)
    stager.next()
    stager.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "replay-stager"]
    with pytest.raises(RuntimeError, match="closed"):
        stager.next()
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        Stager(replay, ahead=0)


@pytest.mark.parametrize("device", DEVICES)
def test_batches_stay_whole_while_the_learner_is_slow(tools: SimpleNamespace, device: str) -> None:
    replay, source = Replay(tools.FIELDS, **OPTIONS), tools.Source()
    replay.add(source.chunk([0, 1], 60))
    kept = []
    with Stager(replay, device, ahead=2) as stager:
        for _ in range(20):
            staged = stager.next()
            replay.add(source.chunk([0, 1], 9))
            kept.append(staged)
            if device == "cuda":
                torch.randn(1000, 1000, device=device).matmul(torch.randn(1000, 1000, device=device))
    for staged in kept:
        tools.check_batch(replay, as_arrays(staged), source)

"""Settings and rows that cannot work are refused in one sentence; sizes are what they are said to be."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from oneiros.algorithms.contract import Field
from oneiros.platform.replay import Replay, ReplayMismatch, ReplayNotReady

OPTIONS = {"capacity": 1000, "length": 4, "context": 1, "chunk_rows": 16, "batch": 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "length is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"context": -1}, "context is -1"),
        ({"capacity": 4}, "capacity is 4 rows; windows and chunks of 16 rows do not fit"),
        ({"chunk_rows": 1 << 30, "capacity": 1 << 31}, "chunk_rows is 1073741824"),
        ({"latent_stride": 4, "context": 2}, "latent_stride 4 needs context 1"),
        (
            {"mixture": {"random": 1.0}},
            "Unknown replay selector 'random'; choose among: uniform, priority, curious, recency",
        ),
        ({"mixture": {"uniform": 0.5, "recency": 0.4}}, r"sum to 1, not: uniform=0.5, recency=0.4"),
        ({"recency_half_life": 0, "mixture": {"recency": 1.0}}, "half-life of recency-weighted replay is 0"),
        ({"priority_exponent": -1, "mixture": {"priority": 1.0}}, "exponent of prioritised replay is -1"),
    ],
)
def test_settings_that_cannot_work(tools: SimpleNamespace, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replay(tools.FIELDS, **{**OPTIONS, **change})


def test_fields_that_cannot_work(tools: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="needs the field 'is_last'"):
        Replay({name: field for name, field in tools.FIELDS.items() if name != "is_last"}, **OPTIONS)
    with pytest.raises(ValueError, match="'note' has dtype object"):
        Replay({**tools.FIELDS, "note": Field((), np.dtype(object))}, **OPTIONS)


def without(rows: dict, name: str) -> dict:
    return {key: value for key, value in rows.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: without(rows, "reward"), "lack the entry 'reward'"),
        (lambda rows: without(rows, "latent/stoch"), "lack the entry 'latent/stoch'"),
        (lambda rows: {**rows, "score": rows["reward"]}, "an entry 'score' that replay does not know"),
        (lambda rows: {**rows, "reward": rows["reward"][..., None]}, r"'reward' have the shape \(2, 3, 1\)"),
        (lambda rows: {**rows, "reward": rows["reward"][:, 1:]}, r"'reward' have \(2, 2\) streams and steps"),
        (lambda rows: {**rows, "action": rows["reward"]}, "'action' are float32, which does not fit int32"),
        (lambda rows: {name: value[:, :0] for name, value in rows.items()}, "there is nothing to store"),
    ],
)
def test_rows_that_do_not_fit(tools: SimpleNamespace, change: object, message: str) -> None:
    replay, chunk = Replay(tools.FIELDS, **OPTIONS), tools.Source().chunk([0, 1], 3)
    chunk.rows = change(chunk.rows)
    with pytest.raises(ReplayMismatch, match=message):
        replay.add(chunk)
    assert len(replay) == 0


def test_streams_that_do_not_fit(tools: SimpleNamespace) -> None:
    chunk = tools.Source().chunk([0, 1], 3)
    chunk.streams = np.array([0, 1, 2])
    with pytest.raises(ReplayMismatch, match=r"rows of 2 streams, but stream ids of shape \(3,\)"):
        Replay(tools.FIELDS, **OPTIONS).add(chunk)


def test_latents_that_do_not_fit(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)
    replay.add(tools.Source().chunk([0], 10))
    ids = replay.sample()["row_id"][:, 1:]
    stoch = np.zeros((*ids.shape, 2), np.uint8)
    with pytest.raises(ReplayMismatch, match="'latent/deter' is missing"):
        replay.write_back(ids, {"stoch": stoch})
    with pytest.raises(ReplayMismatch, match=r"'latent/deter' is \(8, 4, 3\); it must be \(8, 4, 4\)"):
        replay.write_back(ids, {"deter": np.zeros((*ids.shape, 3), np.float16), "stoch": stoch})
    with pytest.raises(ReplayMismatch, match="'latent/stoch' is float16"):
        replay.write_back(ids, {"deter": np.zeros((*ids.shape, 4), np.float16), "stoch": stoch.astype(np.float16)})
    with pytest.raises(ReplayMismatch, match=r"8 windows, but signals of shape \(3,\)"):
        replay.prioritise(ids, np.ones(3))


def test_too_early_to_sample(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)
    for stream in range(3):
        replay.add(tools.Source().chunk([stream], 4))
    assert not replay.ready
    with pytest.raises(ReplayNotReady, match="12 rows, but no 5 consecutive ones"):
        replay.sample()


def test_rows_without_latents_begin_from_nothing_until_written_back(tools: SimpleNamespace) -> None:
    replay, source = Replay(tools.FIELDS, **OPTIONS, online=False), tools.Source()
    replay.add(source.chunk([0], 40, latents=False))
    batch = replay.sample(50)
    assert not batch["latent_valid"].any() and not batch["latent/deter"].any()
    ids = np.arange(3, 9, dtype=np.int64)[None]
    replay.write_back(ids, {"deter": np.full((1, 6, 4), 2, np.float16), "stoch": np.full((1, 6, 2), 3, np.uint8)})
    batch = replay.sample(200)
    known = np.isin(batch["row_id"][:, 0], ids)
    assert known.any()
    np.testing.assert_array_equal(batch["latent_valid"], known)
    assert (batch["latent/deter"][known] == 2).all() and (batch["latent/stoch"][known] == 3).all()


def test_rows_may_say_which_of_them_have_latents(tools: SimpleNamespace) -> None:
    replay, source = Replay(tools.FIELDS, **OPTIONS, online=False), tools.Source()
    chunk = source.chunk([0], 40)
    chunk.rows["latent_valid"] = np.arange(40)[None] >= 20
    replay.add(chunk)
    batch = replay.sample(200)
    assert 0 < batch["latent_valid"].sum() < 200
    np.testing.assert_array_equal(batch["latent_valid"], batch["obs"][:, 0, 2] >= 20)
    chunk.rows["latent_valid"] = np.ones((1, 39), bool)
    with pytest.raises(ReplayMismatch, match=r"'latent_valid' have .1, 39. streams"):
        replay.add(chunk)


def test_rows_that_are_not_fresh_stay_out_of_the_queue(tools: SimpleNamespace) -> None:
    replay, source = Replay(tools.FIELDS, **OPTIONS), tools.Source()
    replay.add(source.chunk([0], 40), fresh=False)
    assert replay.stats()["online_queue"] == 0
    replay.sample()
    assert replay.stats()["sampled_online"] == 0
    replay.add(source.chunk([1], 40))
    assert replay.stats()["online_queue"] == 8
    replay.sample(6)
    replay.sample(3, apart=True)
    assert (replay.stats()["sampled_online"], replay.stats()["online_queue"]) == (6, 2)


def test_latent_stride_keeps_what_windows_begin_with(tools: SimpleNamespace) -> None:
    options = {**OPTIONS, "length": 7, "latent_stride": 4}
    replay, source = Replay(tools.FIELDS, **options), tools.Source()
    for _ in range(8):
        replay.add(source.chunk([0, 1], 11))
    batch = replay.sample(60)
    tools.check_batch(replay, batch, source)
    assert batch["latent_valid"].all()
    assert (batch["row_id"][:, 0] % 4 == 0).all()
    trained = batch["row_id"][:, 1:]
    values = {"deter": np.full((*trained.shape, 4), 9, np.float16), "stoch": np.full((*trained.shape, 2), 9, np.uint8)}
    replay.write_back(trained, values)
    again = replay.sample(300, apart=True)
    written = np.isin(again["row_id"][:, 0], trained)
    assert written.any()
    assert (again["latent/deter"][written] == 9).all()


@pytest.mark.parametrize(("deter", "stride", "most"), [(2048, 1, 1.4), (8192, 8, 1.2)])
def test_bytes_of_an_image_row(deter: int, stride: int, most: float) -> None:
    layout = {
        "obs": Field((64, 64, 3), np.dtype(np.uint8)),
        "action": Field((), np.dtype(np.int32)),
        "reward": Field((), np.dtype(np.float32)),
        "is_first": Field((), np.dtype(bool)),
        "is_last": Field((), np.dtype(bool)),
        "is_terminal": Field((), np.dtype(bool)),
        "latent/deter": Field((deter,), np.dtype(np.float16)),
        "latent/stoch": Field((32,), np.dtype(np.uint8)),
    }
    replay = Replay(layout, capacity=2048, chunk_rows=1024, latent_stride=stride)
    rows = {name: np.zeros((2, 64, *field.shape), field.dtype) for name, field in layout.items()}
    for _ in range(16):
        replay.add(SimpleNamespace(rows=rows, streams=np.arange(2)))
    stats = replay.stats()
    assert stats["row_bytes_obs"] == 64 * 64 * 3
    assert stats["row_bytes"] < most * stats["row_bytes_obs"]
    assert stats["rows"] == 2048
    assert stats["memory_bytes"] == pytest.approx(2048 * stats["row_bytes"], rel=0.005)


def test_streams_that_come_and_go_do_not_pile_up(tools: SimpleNamespace) -> None:
    replay = Replay(tools.FIELDS, **OPTIONS)
    for stream in range(900):
        replay.add(tools.Source().chunk([stream], 1))
    assert len(replay.chunks) <= replay.max_chunks < 1000
    assert len(replay.streams) <= len(replay.chunks)


def test_threads_may_add_sample_and_write_back_at_once(tools: SimpleNamespace) -> None:
    replay, source = Replay(tools.FIELDS, **{**OPTIONS, "capacity": 300}), tools.Source()
    replay.add(source.chunk([0, 1], 40))
    done, failures = threading.Event(), []

    def learn() -> None:
        try:
            while not done.is_set():
                batch = replay.sample()
                tools.check_batch(replay, batch, source)
                # The values that the rows have anyway: any torn mixture of rows would show.
                expected = tools.derived(batch["obs"][:, 1:])
                replay.write_back(
                    batch["row_id"][:, 1:],
                    {"deter": expected["latent/deter"], "stoch": expected["latent/stoch"]},
                )
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=learn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        replay.add(source.chunk([0, 1], 17))
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert replay.counters["evicted"] > 0
    assert replay.counters["written_back"] > 0

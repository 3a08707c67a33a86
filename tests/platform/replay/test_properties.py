"""Whatever is added, interrupted, evicted, saved and restored: what comes out is what went in, in order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oneiros.platform.replay import Replay

COMMON = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

LAYOUTS = st.sampled_from(
    [
        {"length": 4, "context": 1, "chunk_rows": 5, "capacity": 60},
        {"length": 4, "context": 1, "chunk_rows": 8, "capacity": 9},
        {"length": 6, "context": 2, "chunk_rows": 3, "capacity": 100},
        {"length": 1, "context": 0, "chunk_rows": 4, "capacity": 40},
        {"length": 5, "context": 1, "chunk_rows": 8, "capacity": 80, "latent_stride": 4},
        {"length": 4, "context": 1, "chunk_rows": 64, "capacity": 400},
    ]
)
MIXTURES = st.sampled_from([None, {"uniform": 0.3, "priority": 0.4, "recency": 0.3}])
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 3), st.integers(1, 24)),
    st.tuples(st.just("add"), st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.just("interrupt"), st.integers(0, 2), st.sampled_from(["gap", "flag", "end"])),
    st.tuples(st.just("sample"), st.booleans()),
    st.tuples(st.just("restore"), st.booleans()),
)


class Life:
    """A replay, what was fed to it, and what has been queued."""

    def __init__(self, tools: SimpleNamespace, layout: dict, mixture: dict | None, folder: Path, on_disk: bool) -> None:
        self.tools, self.folder = tools, folder
        self.options = {**layout, "mixture": mixture, "batch": 4, "seed": 3}
        self.source = tools.Source()
        self.places = 0
        self.broken: set[int] = set()
        self.online: list[tuple[int, int, int]] = []
        self.replay = self.build(on_disk)

    def build(self, on_disk: bool) -> Replay:
        self.places += 1
        directory = self.folder / f"live-{self.places}" if on_disk else None
        return Replay(self.tools.FIELDS, directory=directory, **self.options)

    def add(self, streams: int, steps: int) -> None:
        continues = np.array([stream not in self.broken for stream in range(streams)])
        before = self.replay.counters["inserted"]
        chunk = self.source.chunk(range(streams), steps)
        assert self.replay.add(chunk, continues=continues) == streams * steps
        assert self.replay.counters["inserted"] - before == streams * steps
        self.broken -= set(range(streams))

    def interrupt(self, stream: int, how: str) -> None:
        if stream not in self.source.at:
            return
        if how == "gap":
            # The next row is no first one after a last one, nor the other way round: nobody needs to be told.
            if self.source.at[stream][1] % self.source.episode:
                self.source.interrupt(stream)
            return
        self.source.interrupt(stream)
        if how == "flag":
            self.broken.add(stream)
        else:
            self.replay.end_streams(np.array([stream]))

    def sample(self, online: bool) -> None:
        if not self.replay.ready:
            return
        fresh = min(len(self.replay.queue), 4) if online else 0
        batch = self.replay.sample(apart=not online)
        self.tools.check_batch(self.replay, batch, self.source)
        for window in batch["obs"][:fresh]:
            self.online.append(tuple(window[0].tolist()))
        self.replay.prioritise(batch["row_id"], batch["reward"].mean(1))

    def restore(self, on_disk: bool) -> None:
        other = self.build(on_disk)
        self.replay.save(self.folder / f"save-{self.places}")
        other.load(self.folder / f"save-{self.places}")
        self.replay.close()
        self.replay = other

    def check(self) -> None:
        replay = self.replay
        assert len(replay) <= replay.capacity
        assert replay.counters["inserted"] - replay.counters["evicted"] == len(replay)
        indexed = self.tools.indexed_windows(replay)
        assert len(indexed) == len(set(indexed))
        assert set(indexed) == self.tools.possible_windows(replay)


@settings(COMMON, max_examples=80)
@given(layout=LAYOUTS, mixture=MIXTURES, steps=st.lists(STEPS, max_size=25), on_disk=st.booleans())
def test_life(tools: SimpleNamespace, layout: dict, mixture: dict | None, steps: list[tuple], on_disk: bool) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        life = Life(tools, layout, mixture, folder, on_disk)
        for name, *arguments in steps:
            getattr(life, name)(*arguments)
            life.check()
        check_disjoint(life.online, life.replay.window)
        life.replay.close()
    finally:
        shutil.rmtree(folder)


def check_disjoint(starts: list[tuple[int, int, int]], window: int) -> None:
    taken = {(stream, segment, position + step) for stream, segment, position in starts for step in range(window)}
    assert len(taken) == len(starts) * window


@settings(COMMON, max_examples=40)
@given(layout=LAYOUTS, sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8), streams=st.integers(1, 3))
def test_online_covers_everything_once(tools: SimpleNamespace, layout: dict, sizes: list[int], streams: int) -> None:
    layout = {**layout, "capacity": 1000}
    replay, source = Replay(tools.FIELDS, batch=1, **layout), tools.Source()
    for size in sizes:
        replay.add(source.chunk(range(streams), size))
    starts = []
    while len(replay.queue):
        starts.append(tuple(replay.sample()["obs"][0, 0].tolist()))
    check_disjoint(starts, replay.window)
    step = -(-replay.window // replay.schema.stride) * replay.schema.stride
    total = sum(sizes)
    assert len(starts) == streams * max(0, (total - replay.window) // step + 1)
    for stream in range(streams):
        assert [start[2] for start in starts if start[0] == stream] == list(range(0, total - replay.window + 1, step))


@settings(COMMON, max_examples=12)
@given(
    layout=LAYOUTS,
    mixture=MIXTURES,
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    on_disk=st.booleans(),
    to_disk=st.booleans(),
)
def test_restore_is_exact(
    tools: SimpleNamespace, layout: dict, mixture: dict | None, sizes: list[int], on_disk: bool, to_disk: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        life = Life(tools, layout, mixture, folder, True)
        replay = life.replay if on_disk else life.build(False)
        other = life.build(to_disk)
        source = tools.Source()
        for turn, size in enumerate(sizes):
            replay.add(source.chunk(range(3), size))
            if replay.ready:
                batch = replay.sample()
                replay.prioritise(batch["row_id"], np.arange(4.0))
                ids = batch["row_id"][:, replay.context :]
                values = np.full((*ids.shape, 4), turn + 0.5, np.float16)
                replay.write_back(ids, {"deter": values, "stoch": np.full((*ids.shape, 2), turn, np.uint8)})
        replay.save(folder / "save")
        other.load(folder / "save")
        tools.assert_same_future(replay, other, source)
        replay.close()
        other.close()


@settings(COMMON, max_examples=30)
@given(layout=LAYOUTS, sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6), seed=st.integers(0, 9))
def test_write_back_is_seen(tools: SimpleNamespace, layout: dict, sizes: list[int], seed: int) -> None:
    replay, source = Replay(tools.FIELDS, batch=4, seed=seed, **layout), tools.Source()
    written: dict[int, float] = {}
    for turn, size in enumerate(sizes):
        replay.add(source.chunk(range(2), size))
        if not replay.ready or not replay.context:
            continue
        batch = replay.sample()
        first = batch["row_id"][:, 0].tolist()
        for index, row in enumerate(first):
            if replay.context == 1 and row in written:
                assert (batch["latent/deter"][index] == written[row]).all()
        ids = batch["row_id"][:, replay.context :]
        values = turn + np.arange(ids.size, dtype=np.float16).reshape(ids.shape) / 64
        replay.add(source.chunk(range(2), 3))
        alive = np.array([[row >> 20 in replay.chunks for row in window] for window in ids.tolist()])
        found = replay.write_back(
            ids,
            {"latent/deter": np.repeat(values[..., None], 4, -1), "latent/stoch": np.zeros((*ids.shape, 2), np.uint8)},
        )
        assert found == alive.sum()
        assert replay.counters["write_back_missed"] >= (~alive).sum()
        for row, value in zip(ids.ravel().tolist(), values.ravel().tolist(), strict=True):
            if (row & 0xFFFFF) % replay.schema.stride == 0:
                written[row] = value


def test_a_row_without_an_end_never_runs_into_a_first_one(tools: SimpleNamespace) -> None:
    replay, source = Replay(tools.FIELDS, capacity=100, length=4, context=1, chunk_rows=50), tools.Source()
    replay.add(source.chunk([0], 10))
    assert source.at[0][1] % source.episode != 0
    source.interrupt(0)
    replay.add(source.chunk([0], 10))
    assert replay.windows.total == 2 * 6
    broken = source.chunk([1], 12)
    broken.rows["is_last"][0, 6] = False
    replay.add(broken)
    assert replay.windows.total == 2 * 6 + 3 + 1


@pytest.mark.parametrize("stride", [1, 4])
def test_uniform_is_uniform(tools: SimpleNamespace, stride: int) -> None:
    options = {"length": 4, "context": 1, "chunk_rows": 8, "latent_stride": stride, "online": False, "batch": 500}
    replay, source = Replay(tools.FIELDS, capacity=100, **options), tools.Source()
    for size in (3, 9, 20, 1, 13):
        replay.add(source.chunk(range(3), size))
    counts: dict[tuple, int] = {}
    for _ in range(40):
        for row in replay.sample()["obs"][:, 0].tolist():
            counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    windows = tools.possible_windows(replay)
    assert set(counts) == windows
    expected = 20000 / len(windows)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(windows) - 1
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)

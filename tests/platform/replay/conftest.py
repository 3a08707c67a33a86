"""Experience in which every row says which one it is: ``obs`` is (stream, segment, position), the rest follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from oneiros.algorithms.contract import Field
from oneiros.platform.replay import Replay

FIELDS = {
    "obs": Field((3,), np.dtype(np.int64)),
    "camera/left": Field((2, 2, 1), np.dtype(np.uint8)),
    "action": Field((), np.dtype(np.int32)),
    "reward": Field((), np.dtype(np.float32)),
    "is_first": Field((), np.dtype(bool)),
    "is_last": Field((), np.dtype(bool)),
    "is_terminal": Field((), np.dtype(bool)),
    "latent/deter": Field((4,), np.dtype(np.float16)),
    "latent/stoch": Field((2,), np.dtype(np.uint8)),
}


def derived(obs: np.ndarray) -> dict[str, np.ndarray]:
    """Everything but the flags, from ``obs`` ``(..., 3)``."""
    code = obs[..., 0] * 7919 + obs[..., 1] * 104729 + obs[..., 2]
    return {
        "obs": obs,
        "camera/left": np.broadcast_to((code % 251)[..., None, None, None], (*code.shape, 2, 2, 1)).astype(np.uint8),
        "action": (code % 1013).astype(np.int32),
        "reward": (code % 4093).astype(np.float32),
        "latent/deter": np.broadcast_to((code % 2039)[..., None], (*code.shape, 4)).astype(np.float16),
        "latent/stoch": np.broadcast_to((code % 31)[..., None], (*code.shape, 2)).astype(np.uint8),
    }


@dataclass
class Source:
    """Streams of such rows; an episode ends after every ``episode`` rows of a segment."""

    episode: int = 7
    at: dict[int, list[int]] = field(default_factory=dict)

    def chunk(self, streams: Iterable[int], steps: int, latents: bool = True) -> Any:
        streams = np.array(list(streams), np.int64)
        obs = np.zeros((len(streams), steps, 3), np.int64)
        for index, stream in enumerate(streams.tolist()):
            segment, position = self.at.setdefault(stream, [0, 0])
            obs[index, :, 0], obs[index, :, 1] = stream, segment
            obs[index, :, 2] = position + np.arange(steps)
            self.at[stream][1] += steps
        rows = derived(obs) | self.flags(obs)
        if not latents:
            rows = {name: value for name, value in rows.items() if not name.startswith("latent/")}
        return SimpleNamespace(rows=rows, streams=streams)

    def flags(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        last = obs[..., 2] % self.episode == self.episode - 1
        return {
            "is_first": obs[..., 2] % self.episode == 0,
            "is_last": last,
            "is_terminal": last & (obs[..., 2] % 2 == 0),
        }

    def interrupt(self, stream: int) -> None:
        """What comes next is another segment, beginning in the middle of nowhere."""
        self.at[stream] = [self.at[stream][0] + 1, 0] if stream in self.at else [0, 0]


def check_batch(replay: Replay, batch: Mapping[str, np.ndarray], source: Source, pristine: bool = True) -> None:
    """Every window is one that happened: one segment of one stream, in order, with all that belongs to its rows."""
    obs = batch["obs"]
    assert obs.shape[1] == replay.window
    assert (obs[:, :, :2] == obs[:, :1, :2]).all()
    assert (np.diff(obs[:, :, 2], axis=1) == 1).all()
    expected = derived(obs) | source.flags(obs)
    for name in ("camera/left", "action", "reward", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(batch[name], expected[name], err_msg=name)
    if pristine and replay.context:
        for name in ("latent/deter", "latent/stoch"):
            valid = batch["latent_valid"]
            np.testing.assert_array_equal(batch[name][valid], expected[name][:, : replay.context][valid])
            assert not batch[name][~valid].any()


def stored_rows(replay: Replay) -> dict[tuple[int, int, int], int]:
    """Every row that the replay holds, by what it says it is, with its offset in its chunk; each is there once."""
    rows: dict[tuple[int, int, int], int] = {}
    for chunk in replay.chunks.values():
        for offset, row in enumerate(chunk.rows.columns["obs"][: chunk.count].tolist()):
            assert tuple(row) not in rows
            rows[tuple(row)] = offset
    assert len(rows) == len(replay)
    return rows


def possible_windows(replay: Replay) -> set[tuple[int, int, int]]:
    """First rows of all windows that there are, found by looking at every row."""
    rows = stored_rows(replay)
    return {
        (stream, segment, position)
        for (stream, segment, position), offset in rows.items()
        if offset % replay.schema.stride == 0
        and all((stream, segment, position + step) in rows for step in range(replay.window))
    }


def indexed_windows(replay: Replay) -> list[tuple[int, int, int]]:
    """First rows of all windows, in the order in which the replay counts them."""
    starts = replay.windows.locate(np.arange(replay.windows.total)) if replay.windows.total else np.zeros(0, np.int64)
    return [
        tuple(replay.chunks[start >> 20].rows.columns["obs"][start & 0xFFFFF].tolist()) for start in starts.tolist()
    ]


def assert_same_future(one: Replay, other: Replay, source: Source, batches: int = 4) -> None:
    """Both replays give the same batches from here on, bit for bit, also after the same further rows."""
    for turn in range(batches):
        if turn == batches // 2:
            more = source.chunk(list(source.at), 5)
            one.add(more)
            other.add(more)
        if not one.ready:
            assert not other.ready
            continue
        left, right = one.sample(), other.sample()
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert one.counters == other.counters


@pytest.fixture
def tools() -> SimpleNamespace:
    return SimpleNamespace(
        FIELDS=FIELDS,
        Source=Source,
        derived=derived,
        check_batch=check_batch,
        stored_rows=stored_rows,
        possible_windows=possible_windows,
        indexed_windows=indexed_windows,
        assert_same_future=assert_same_future,
    )

"""Batches on a device, the next ones made ready while the learner works on this one.

On CUDA a worker thread samples straight into pinned memory and copies from there on a stream of its own; on the CPU it
hands over what was sampled, uncopied. Without a worker (``threaded=False``) each batch is sampled when it is asked for,
so that the order of adding, sampling and writing back is that of the calls: for exact resume, and for tests.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from oneiros.platform.replay.buffer import Batch, Replay, ReplayNotReady
from oneiros.platform.replay.windows import Ids
from torch import Tensor

POLL_SECONDS = 0.02


class Staged(NamedTuple):
    """A batch on the device, entries as `Replay.sample` has them, and its row ids ``(B, context + length)``."""

    rows: dict[str, Tensor]
    row_id: Ids


@dataclass
class _Slot:
    """Pinned memory for one batch, and the event after which it may be overwritten."""

    tensors: dict[str, Tensor]
    arrays: Batch
    copied: torch.cuda.Event = field(default_factory=torch.cuda.Event)


@dataclass(frozen=True)
class _Ready:
    staged: Staged
    copied: torch.cuda.Event | None


class Stager:
    """Feeds one learner from ``replay``; ``ahead`` batches lie ready.

    A write-back never races with sampling (the replay's lock), but a batch staged ahead was sampled before the
    write-backs of the updates still running: its latents, and its choice of rows, may be ``ahead`` updates old.
    """

    def __init__(
        self, replay: Replay, device: torch.device | str = "cpu", *, threaded: bool = True, ahead: int = 1
    ) -> None:
        if ahead < 1:
            raise ValueError(f"A stager cannot have {ahead} batches ready; ahead must be at least 1.")
        self.replay = replay
        self.device = torch.device(device)
        self._ahead = ahead
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        # One more than lie ready: the copy out of one slot may still run while the next is filled.
        self._slots = deque([self._slot() for _ in range(ahead + 1)] if self._stream is not None else [])
        self._ready: deque[_Ready] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="replay-stager", daemon=True) if threaded else None
        if self._worker is not None:
            self._worker.start()

    def __enter__(self) -> Stager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def next(self) -> Staged:
        """The next batch, safe to use on the current stream.

        Raises `ReplayNotReady` without a single whole window, ``RuntimeError`` once the worker failed or was closed.
        """
        ready = self._stage() if self._worker is None else self._take()
        if ready.copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready.copied)
            for tensor in ready.staged.rows.values():
                tensor.record_stream(current)
        return ready.staged

    def sample_apart(self) -> Staged:
        """A batch sampled now that is not for training, which it leaves as it was (`Replay.sample`)."""
        sampled = self.replay.sample(apart=True)
        row_id = sampled.pop("row_id")
        return Staged({name: torch.from_numpy(value).to(self.device) for name, value in sampled.items()}, row_id)

    def close(self) -> None:
        """End the worker, and forget the batches that lie ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.join()
        self._ready.clear()

    def _take(self) -> _Ready:
        while True:
            with self._changed:
                if self._error is not None:
                    raise RuntimeError(f"The replay stager failed: {self._error}") from self._error
                if self._closed:
                    raise RuntimeError("The replay stager is closed.")
                if self._ready:
                    self._changed.notify_all()
                    return self._ready.popleft()
            # The replay is never asked while the condition is held: its lock may be long in coming.
            if not self.replay.ready:
                raise ReplayNotReady("Replay has no whole window yet: add more steps before asking for a batch.")
            with self._changed:
                if not self._ready:
                    self._changed.wait(POLL_SECONDS)

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    while len(self._ready) >= self._ahead and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                try:
                    ready = self._stage()
                except ReplayNotReady:
                    # Nobody says when it becomes so.
                    with self._changed:
                        self._changed.wait(POLL_SECONDS)
                    continue
                with self._changed:
                    self._ready.append(ready)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _stage(self) -> _Ready:
        if self._stream is None:
            sampled = self.replay.sample()
            row_id = sampled.pop("row_id")
            return _Ready(Staged({name: torch.from_numpy(value) for name, value in sampled.items()}, row_id), None)
        slot = self._slots[0]
        self._slots.rotate(-1)
        slot.copied.synchronize()
        self.replay.sample(out=slot.arrays)
        with torch.cuda.stream(self._stream):
            rows = {name: value.to(self.device, non_blocking=True) for name, value in slot.tensors.items()}
            slot.copied = torch.cuda.Event()
            slot.copied.record(self._stream)
        return _Ready(Staged(rows, slot.arrays["row_id"].copy()), slot.copied)

    def _slot(self) -> _Slot:
        shapes = self.replay.batch_shapes()
        pinned = {
            name: torch.from_numpy(np.empty(shape, dtype)).pin_memory() for name, (shape, dtype) in shapes.items()
        }
        arrays = {name: tensor.numpy() for name, tensor in pinned.items()}
        del pinned["row_id"]
        return _Slot(pinned, arrays)

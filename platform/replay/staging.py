"""Batches on a device, the next one made ready while the learner works on this one.

On CUDA a worker thread samples straight into pinned memory and copies from there on a stream of its own; on the CPU it
hands over what was sampled, uncopied. Without a worker (``threaded=False``) each batch is sampled when asked for, after
everything that was written back before: that is what exact resume and tests use.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from oneiros.platform.replay.buffer import LATENT, Batch, Replay, ReplayNotReady
from oneiros.platform.replay.windows import Ids
from torch import Tensor


@dataclass(frozen=True)
class Staged:
    """A batch, ``(B, context + length, ...)`` tensors on the device, and its row ids ``(B, context + length)``."""

    batch: dict[str, Tensor]
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


@dataclass(frozen=True)
class _Learnt:
    row_id: Ids
    latents: dict[str, Tensor]
    signal: Tensor | None
    copied: torch.cuda.Event | None


class Stager:
    """Feeds one learner from ``replay`` and takes its latents back; ``ahead`` batches lie ready.

    The worker does both, in turn, so a write-back never races with sampling. A batch staged ahead has been sampled
    before the write-backs of the updates still running: its latents may be ``ahead`` updates old.
    """

    def __init__(
        self, replay: Replay, device: torch.device | str = "cpu", *, threaded: bool = True, ahead: int = 1
    ) -> None:
        if ahead < 1:
            raise ValueError(f"A stager that works {ahead} batches ahead is not one: ahead must be at least 1.")
        self.replay = replay
        self.device = torch.device(device)
        self.threaded = threaded
        self._ahead = ahead
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._slots = deque(self._slot() for _ in range(ahead + 1)) if self._stream is not None else deque()
        self._ready: deque[_Ready] = deque()
        self._learnt: deque[_Learnt] = deque()
        self._changed = threading.Condition()
        self._working = False
        self._closed = False
        self._error: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="replay-stager", daemon=True)
        if threaded:
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
        if not self.threaded:
            ready = self._stage()
        else:
            with self._changed:
                if not self._ready and not self.replay.ready:
                    self.replay.sample()  # Says what is missing.
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._ready or self._error or self._closed)
                self._raise_if_broken()
                ready = self._ready.popleft()
                self._changed.notify_all()
        if ready.copied is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready.copied)
            for tensor in ready.staged.batch.values():
                tensor.record_stream(current)
        return ready.staged

    def write_back(self, row_id: Ids, latents: Mapping[str, Tensor], signal: Tensor | None = None) -> None:
        """Store refreshed ``latents`` ``(B, T, ...)`` over the rows ``row_id`` ``(B, context + T)``, after the context.

        ``signal`` ``(B,)`` says how much each window taught, for prioritised replay. Does not wait for the device:
        the copy is in line on the current stream, so static buffers of a captured update may be reused afterwards.
        """
        steps = self.replay.latent_steps
        kept = {name.removeprefix(LATENT): self._to_host(tensor.detach()[:, steps]) for name, tensor in latents.items()}
        own = None if signal is None else self._to_host(signal.detach().float())
        copied = None
        if self._stream is not None:
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(self.device))
        learnt = _Learnt(row_id, kept, own, copied)
        if not self.threaded:
            self._apply(learnt)
            return
        with self._changed:
            self._raise_if_broken()
            self._learnt.append(learnt)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything written back so far is in the replay, as before a save."""
        with self._changed:
            self._changed.wait_for(lambda: (not self._learnt and not self._working) or self._error or self._closed)
            self._raise_if_broken()

    def close(self) -> None:
        """Finish what was written back, end the worker, and forget the batches that lie ready."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self.threaded:
            self._worker.join()
        self._ready.clear()

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise RuntimeError("The replay stager failed.") from self._error
        if self._closed:
            raise RuntimeError("The replay stager is closed.")

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._working = False
                    self._changed.notify_all()
                    # The timeout is for a replay that becomes ready while nobody waits for a batch.
                    while not (self._learnt or self._closed or (len(self._ready) < self._ahead and self.replay.ready)):
                        self._changed.wait(0.02)
                    if self._closed and not self._learnt:
                        return
                    self._working = True
                    learnt = self._learnt.popleft() if self._learnt else None
                if learnt is not None:
                    self._apply(learnt)
                    continue
                try:
                    ready = self._stage()
                except ReplayNotReady:
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
            batch = {name: value.to(self.device, non_blocking=True) for name, value in slot.tensors.items()}
            slot.copied.record(self._stream)
        return _Ready(Staged(batch, slot.arrays["row_id"].copy()), slot.copied)

    def _slot(self) -> _Slot:
        shapes = self.replay.batch_shapes()
        pinned = {
            name: torch.from_numpy(np.empty(shape, dtype)).pin_memory() for name, (shape, dtype) in shapes.items()
        }
        arrays = {name: tensor.numpy() for name, tensor in pinned.items()}
        del pinned["row_id"]
        return _Slot(pinned, arrays)

    def _to_host(self, tensor: Tensor) -> Tensor:
        if tensor.device.type == "cpu":
            return tensor
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    def _apply(self, learnt: _Learnt) -> None:
        if learnt.copied is not None:
            learnt.copied.synchronize()
        if learnt.signal is not None:
            self.replay.prioritise(learnt.row_id, learnt.signal.numpy())
        rows = learnt.row_id[:, self.replay.context :][:, self.replay.latent_steps]
        self.replay.write_back(rows, {name: tensor.numpy() for name, tensor in learnt.latents.items()})

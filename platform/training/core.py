"""The learner's core: an agent, its replay, and the loop between them. No Ray, one process, one device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from oneiros.algorithms.contract import SIGNAL, Agent, Tensors
from oneiros.platform.checkpoint import CheckpointError, read_tree, write_tensors, write_tree
from oneiros.platform.replay import CorruptChunk, Replay, ReplayMismatch
from oneiros.platform.replay.staging import Stager
from oneiros.platform.rollout import Chunk
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

log = logging.getLogger(__name__)

AGENT_FILE = "agent.safetensors"
NONFINITE = "nonfinite"
"""The metric by which an agent says that it skipped an update because a gradient was not finite (1) or not (0)."""


class TrainingDiverged(RuntimeError):
    """Too many updates in a row had gradients that are not finite; the state before is in the last checkpoint."""


class LearnerCore:
    """Feeds an agent from its replay, sends refreshed latents back, and reads metrics late.

    On a GPU, update ``k + 1`` is launched before the metrics and latents of update ``k`` are read, so that reading
    never waits for the device. On the CPU everything of an update is over before the next begins.
    """

    def __init__(
        self, agent: Agent, replay: Replay, device: torch.device, *, ahead: bool = False, most_nonfinite: int = 50
    ) -> None:
        """``ahead`` samples and writes back on a thread, beside the updates; without it every run is the same, given
        a seed. ``most_nonfinite`` skipped updates in a row end the training."""
        self.agent = agent
        self.replay = replay
        self.updates = 0
        self.nonfinite = 0
        self._nonfinite_in_a_row = 0
        self._most_nonfinite = most_nonfinite
        self._device = device
        self._ahead = ahead
        self._stager = Stager(replay, device, threaded=ahead)
        self._launched: _Launched | None = None
        self._hurried = False

    @property
    def ready(self) -> bool:
        """Whether the replay holds enough for a batch."""
        return self.replay.ready

    def add(self, chunk: Chunk) -> None:
        """Store a chunk of experience; it is copied."""
        self.replay.add(chunk)

    def break_streams(self) -> None:
        """Let nothing that is added join what is there: steps in between are missing."""
        self.replay.end_streams()

    def update(self, updates: int) -> dict[str, float]:
        """Take ``updates`` optimiser steps and return the means of the metrics that have become readable.

        After ``hurry`` it is one step.
        Raises ``TrainingDiverged`` once ``most_nonfinite`` updates in a row were skipped by the agent.
        """
        readings: list[dict[str, float]] = []
        for _ in range(updates):
            staged = self._stager.next()
            metrics, latents = self.agent.update(staged.rows)
            self.updates += 1
            launched = _Launched(metrics, latents, staged.row_id)
            readings += self._finish()
            self._launched = launched
            if not launched.on_device:
                readings += self._finish()
            if self._hurried:
                break
        return _means(readings)

    def hurry(self) -> None:
        """Have ``update`` return after the step that it is about; ``updates`` says how many there were."""
        self._hurried = True

    def flush(self) -> dict[str, float]:
        """Wait for the update in flight, if any, put its latents into the replay, and return its metrics."""
        return _means(self._finish())

    def policy_state(self) -> Tensors:
        """Return the weights that acting needs, on the CPU, as of update ``self.updates``."""
        return self.agent.policy_state()

    def save(self, directory: Path) -> None:
        """Write agent, replay and counters into the new ``directory``; raises ``OSError`` if the disk is full."""
        self.flush()
        directory.mkdir(parents=True)
        state = {key: _own_memory(value) for key, value in self.agent.state_dict().items()}
        write_tensors(directory / AGENT_FILE, state)
        self.replay.save(directory / "replay")
        write_tree(directory / "core", self._counters())

    def load(self, directory: Path) -> None:
        """Restore what ``save`` wrote; raises ``CheckpointError`` naming the first tensor that does not fit."""
        self.flush()
        self.load_agent(directory)
        self._refill(lambda: self.replay.load(directory / "replay"))
        self._restore_counters(directory)

    def _restore_counters(self, directory: Path) -> None:
        counters = read_tree(directory / "core")
        self.updates = counters["updates"]
        self.nonfinite = counters["nonfinite"]
        self._nonfinite_in_a_row = counters["nonfinite_in_a_row"]

    def load_agent(self, directory: Path) -> None:
        """Restore the agent alone; raises ``CheckpointError``."""
        load_agent_state(self.agent, directory)

    def load_without_replay(self, directory: Path) -> None:
        """Restore agent and counters, and keep the experience that there is; raises ``CheckpointError``."""
        self.flush()
        self.load_agent(directory)
        self._restore_counters(directory)

    def load_shared(self, directories: Sequence[Path], rank: int, learners: int) -> None:
        """Restore from what another number of learners wrote: the agent whole, of their replays the share of ``rank``.

        Raises ``CheckpointError`` as ``load`` does.
        """
        self.flush()
        self.load_agent(directories[0])
        # Of what the disk held already, the checkpoints have their copies.
        self._refill(self.replay.empty)
        for directory in directories:
            self._refill(partial(self.replay.absorb, directory / "replay", rank, learners))
        self._restore_counters(directories[0])

    def report(self) -> Tensors:
        """Return the agent's open-loop predictions of sequences sampled now, on the CPU; training is the same after."""
        return {name: value.cpu() for name, value in self.agent.report(self._stager.sample_apart().rows).items()}

    def metrics(self) -> dict[str, float]:
        """Counters and the replay's statistics."""
        return {
            "updates": self.updates,
            "faults/nonfinite_updates": self.nonfinite,
            **{f"replay/{key}": float(value) for key, value in self.replay.stats().items()},
        }

    def close(self) -> None:
        """Finish the update in flight and stop what prepares batches."""
        with ExitStack() as rest:
            rest.callback(self.replay.close)
            rest.callback(self._stager.close)
            self._finish()

    def _counters(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "nonfinite": self.nonfinite,
            "nonfinite_in_a_row": self._nonfinite_in_a_row,
        }

    def _refill(self, fill: Callable[[], Any]) -> None:
        """Change what the replay holds; batches that lay ready were of other rows."""
        self._stager.close()
        try:
            fill()
        except (ReplayMismatch, CorruptChunk, OSError) as error:
            raise CheckpointError(f"the checkpoint's replay cannot be used: {error}") from error
        finally:
            self._stager = Stager(self.replay, self._device, threaded=self._ahead)

    def _finish(self) -> list[dict[str, float]]:
        """Read the update in flight, if any: its metrics, and its latents, which go into the replay unless skipped."""
        if self._launched is None:
            return []
        launched, self._launched = self._launched, None
        metrics, latents = launched.read()
        signal = latents.pop(SIGNAL, None)
        if metrics.get(NONFINITE, 0.0) > 0:
            # What an update that learnt nothing says of the rows is not to be trusted either.
            self._skip()
        else:
            self._nonfinite_in_a_row = 0
            if signal is not None:
                self.replay.prioritise(launched.row_id, signal)
            self.replay.write_back(launched.row_id[:, self.replay.context :], latents)
        return [metrics]

    def _skip(self) -> None:
        if self.nonfinite == 0:
            log.warning("an update had gradients that are not finite and was skipped; further ones are only counted")
        self.nonfinite += 1
        self._nonfinite_in_a_row += 1
        if self._nonfinite_in_a_row >= self._most_nonfinite:
            raise TrainingDiverged(
                f"{self._nonfinite_in_a_row} updates in a row had gradients that are not finite; training stops"
            )


def _own_memory(tensor: Tensor) -> Tensor:
    """The tensor on the host, in memory of its own: safetensors refuses views into a shared buffer."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def load_agent_state(agent: Agent, directory: Path) -> None:
    """Give ``agent`` the tensors that ``LearnerCore.save`` wrote; raises ``CheckpointError`` if they do not fit."""
    path = directory / AGENT_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the agent's state {path} cannot be read: {error}") from error
    try:
        agent.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is of another model: {error}") from error


class _Launched:
    """An update that was launched: its metrics and latents are on their way to the host."""

    def __init__(self, metrics: Tensors, latents: Tensors, row_id: NDArray[np.int64]) -> None:
        self.row_id = row_id
        self._names = list(metrics)
        # One tensor, one copy: a copy a metric would be as many synchronisation points.
        values = torch.stack([value.detach().float() for value in metrics.values()]) if metrics else torch.zeros(0)
        self.on_device = values.is_cuda
        self._values = _to_host(values)
        self._latents = {name: _to_host(value) for name, value in latents.items()}
        self._event = torch.cuda.Event() if self.on_device else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
        if self._event is not None:
            self._event.synchronize()
        metrics = dict(zip(self._names, self._values.tolist(), strict=True))
        return metrics, {name: value.numpy() for name, value in self._latents.items()}


def _to_host(tensor: Tensor) -> Tensor:
    """The tensor, or its copy on the host once what is in line on the device has run."""
    if not tensor.is_cuda:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _means(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if not readings:
        return {}
    return {key: sum(reading[key] for reading in readings) / len(readings) for key in readings[-1]}

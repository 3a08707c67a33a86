"""A function of static shapes, recorded once as a CUDA graph and replayed: thousands of launches become one."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from oneiros.algorithms.contract import Tensors
from torch import Tensor

WARM_UP = 3
"""Calls that run uncaptured first, as libraries and compilers allocate and tune on their first calls."""


class Captured:
    """Calls ``fn(inputs)`` so that its effects and results are those of the plain call.

    The first ``WARM_UP`` calls run plainly, on the stream of the later capture, and count as calls like any other.
    Then the function is recorded, which executes nothing, and from there on replayed. Inputs are copied to buffers that
    stay in place; results are buffers that the next call overwrites, so they must be read or copied in stream order.

    Args:
        fn: runs without waiting for the device; all state that it changes is changed in place.
        generators: random generators that ``fn`` draws from.
        device: where ``fn`` runs, which need not be the current device.
    """

    def __init__(self, fn: Callable[[Tensors], Any], generators: Sequence[torch.Generator], device: torch.device):
        self.fn, self.generators, self.device = fn, tuple(generators), device
        self.calls = 0
        self.stream = torch.cuda.Stream(device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Tensors | None = None
        self.results: Any = None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Any:
        """Run ``fn``; raises ``ValueError`` if an entry, a shape or a dtype differs from the first call's."""
        buffers = self._copied(inputs)
        if self.calls < WARM_UP:
            self.calls += 1
            current = torch.cuda.current_stream(self.device)
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                results = self.fn(buffers)
            current.wait_stream(self.stream)
            return results
        if self.graph is None:
            self.graph = self._recorded(buffers)
        self.graph.replay()
        return self.results

    def _copied(self, inputs: Mapping[str, Tensor]) -> Tensors:
        """The buffers that ``fn`` reads, holding ``inputs``."""
        if self.inputs is None:
            self.inputs = {k: torch.empty_like(v, device=self.device) for k, v in inputs.items()}
        if inputs.keys() != self.inputs.keys():
            differing = ", ".join(sorted(inputs.keys() ^ self.inputs.keys()))
            raise ValueError(f"The update was captured for other entries than these: {differing}.")
        for key, buffer in self.inputs.items():
            value = inputs[key]
            if value.shape != buffer.shape or value.dtype != buffer.dtype:
                raise ValueError(
                    f"'{key}' is {value.dtype} {tuple(value.shape)}, but the update was captured for "
                    f"{buffer.dtype} {tuple(buffer.shape)}."
                )
            buffer.copy_(value, non_blocking=True)
        return self.inputs

    def _recorded(self, buffers: Tensors) -> torch.cuda.CUDAGraph:
        # A graph that died with an agent before this one must not be collected, and its memory freed, while recording.
        gc.collect()
        # Generators put what a replay reads of them on the current device.
        with torch.cuda.device(self.device):
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                graph.register_generator_state(generator)
            # Other threads may go on allocating (the one that stages batches does): only this one is being recorded.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.results = self.fn(buffers)
        return graph

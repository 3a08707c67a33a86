"""A function of static shapes, recorded once as a CUDA graph and replayed: thousands of launches become one."""

from __future__ import annotations

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
        self.inputs: Tensors = {}
        self.results: Any = None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Any:
        """Run ``fn``; raises ``ValueError`` if a shape or dtype differs from the first call's."""
        if not self.inputs:
            self.inputs = {k: torch.empty_like(v, device=self.device) for k, v in inputs.items()}
        for key, buffer in self.inputs.items():
            value = inputs[key]
            if value.shape != buffer.shape or value.dtype != buffer.dtype:
                raise ValueError(
                    f"'{key}' is {value.dtype} {tuple(value.shape)}, but the update was captured for "
                    f"{buffer.dtype} {tuple(buffer.shape)}."
                )
            buffer.copy_(value, non_blocking=True)
        if self.calls < WARM_UP:
            self.calls += 1
            current = torch.cuda.current_stream(self.device)
            self.stream.wait_stream(current)
            with torch.cuda.stream(self.stream):
                results = self.fn(self.inputs)
            current.wait_stream(self.stream)
            return results
        if self.graph is None:
            self._record()
        assert self.graph is not None
        self.graph.replay()
        return self.results

    def _record(self) -> None:
        torch.cuda.synchronize(self.device)
        self.graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            self.graph.register_generator_state(generator)
        # Other threads may go on allocating (the one that stages the next batch does): only this one is being recorded.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.results = self.fn(self.inputs)

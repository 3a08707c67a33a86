"""How a captured function is called, recorded and replayed; on a mock of CUDA, as the graphs themselves need one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from oneiros.algorithms.nn.capture import WARM_UP, Captured
from torch import Tensor

DEVICE = torch.device("cpu")


class World:
    """Streams, graphs and the device, as far as ``Captured`` uses them; ``log`` says what was asked for, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.recording = False
        self.on = "default"
        self.fail = False
        self.total = torch.zeros(())
        self.result = torch.zeros(())
        self.read_from: list[int] = []

    def fn(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds ``x`` to a running total, whose value it returns; recording it executes nothing."""
        self.log.append(f"fn on {self.on}{', recorded' if self.recording else ''}")
        if self.fail:
            raise RuntimeError("out of memory")
        self.read_from.append(inputs["x"].data_ptr())
        if self.recording:
            self.recorded = inputs
            return {"total": self.result}
        return {"total": self.total.add_(inputs["x"].sum()).clone()}

    def replay(self) -> None:
        """What a graph of ``fn`` does."""
        self.log.append(f"replayed on {self.on}")
        self.result.copy_(self.total.add_(self.recorded["x"].sum()))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name if isinstance(name, str) else "side"

        def wait_stream(self, other: Stream) -> None:
            world.log.append(f"{self.name} waits for {other.name}")

    class Graph:
        def register_generator_state(self, generator: torch.Generator) -> None:
            world.log.append("generator registered")

        def replay(self) -> None:
            world.replay()

    @contextmanager
    def stream(to: Stream) -> Iterator[None]:
        before, world.on = world.on, to.name
        yield
        world.on = before

    @contextmanager
    def device(which: torch.device) -> Iterator[None]:
        world.log.append("device set")
        yield

    @contextmanager
    def graph(graph: Graph, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "the thread that stages batches allocates meanwhile"
        before, world.on, world.recording = world.on, stream.name, True
        try:
            yield
        finally:
            world.on, world.recording = before, False

    for name, fake in {
        "Stream": Stream,
        "current_stream": lambda device: Stream("default"),
        "stream": stream,
        "device": device,
        "synchronize": lambda: world.log.append("synchronised"),
        "CUDAGraph": Graph,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return world


def captured(world: World) -> Captured:
    return Captured(world.fn, [torch.Generator()], DEVICE)


def test_every_call_counts_once_warm_recorded_or_replayed(world: World) -> None:
    function, total = captured(world), 0.0
    for x in range(1, 9):
        total += x
        assert function({"x": torch.tensor(float(x))})["total"].item() == total


def test_first_it_runs_beside_the_current_stream_then_it_is_recorded_and_replayed_in_it(world: World) -> None:
    function = captured(world)
    for _ in range(WARM_UP + 2):
        function({"x": torch.ones(())})
    warm = ["side waits for default", "fn on side", "default waits for side"]
    recording = ["device set", "synchronised", "generator registered", "fn on side, recorded"]
    assert world.log == warm * WARM_UP + [*recording, "replayed on default", "replayed on default"]


def test_what_it_reads_stays_in_place(world: World) -> None:
    function = captured(world)
    for _ in range(WARM_UP + 1):
        function({"x": torch.ones(())})
    assert len(set(world.read_from)) == 1


def test_what_was_not_captured_for_is_refused(world: World) -> None:
    function = captured(world)
    function({"x": torch.ones(2)})
    with pytest.raises(ValueError, match=r"'x' is torch.float32 \(3,\), but the update was captured for .* \(2,\)"):
        function({"x": torch.ones(3)})
    with pytest.raises(ValueError, match=r"'x' is torch.float64"):
        function({"x": torch.ones(2, dtype=torch.float64)})
    with pytest.raises(ValueError, match="captured for other entries than these: y"):
        function({"x": torch.ones(2), "y": torch.ones(2)})
    with pytest.raises(ValueError, match="captured for other entries than these: x"):
        function({})


def test_a_recording_that_fails_leaves_nothing_to_replay(world: World) -> None:
    function = captured(world)
    for _ in range(WARM_UP):
        function({"x": torch.ones(())})
    world.fail = True
    with pytest.raises(RuntimeError, match="out of memory"):
        function({"x": torch.ones(())})
    world.fail = False
    assert function({"x": torch.ones(())})["total"].item() == WARM_UP + 1

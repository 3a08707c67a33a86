"""A GPU's stand-in where there is none: PyTorch's ``meta`` device, whose tensors have no contents, and a watch over it.

Like CUDA it is not where Python runs: operations do not mix it with the CPU, and nothing on it can be looked at without
waiting, here because there is nothing to be seen. ``Watch`` refuses what a CUDA graph cannot record beside that, and
counts what would be launched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
LAUNCHING_NOTHING = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "_unsafe_view", "set_")
TENSORS_A_LAUNCH = 100
"""Of a ``_foreach`` operation whose lists fit together; of others each tensor is a launch."""


class Unrecordable(AssertionError):
    """A CUDA graph cannot record this, or would record the value that it has now."""


class Watch(TorchDispatchMode):
    """Raises ``Unrecordable`` where a tensor comes from, goes to or lies on another device.

    ``launches`` counts kernels by operation, at least: some operations take several. ``moved`` is the sum of bytes that
    these read and write, if nothing stays in a cache.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.moved = 0

    def __enter__(self) -> Watch:
        self._patches = ExitStack()
        for name in ("tensor", "as_tensor", "from_numpy"):
            self._patches.enter_context(mock.patch.object(torch, name, _copied_from_the_host))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let ``func`` do its work, and look at what goes in and comes out."""
        read = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        self._refuse(func, read)
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        self._refuse(func, made)
        name = func.overloadpacket.__name__
        if not func.is_view and name not in LAUNCHING_NOTHING and any(x.numel() for x in made or read):
            self.launches[name] += _launches(name, args)
            self.moved += sum(x.numel() * x.element_size() for x in (*read, *made))
        return out

    @property
    def kernels(self) -> int:
        """All launches."""
        return sum(self.launches.values())

    def _refuse(self, func: Any, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.device != DEVICE:
                raise Unrecordable(f"{func} has to do with a tensor {tuple(tensor.shape)} on {tensor.device}.")


def _copied_from_the_host(*_: Any, **__: Any) -> Tensor:
    raise Unrecordable("Python's numbers become a tensor, whose copy to the device would wait.")


def _launches(name: str, args: Any) -> int:
    if name in ("addmm", "baddbmm"):
        # A summand as large as the result is copied there first.
        return 1 + (args[0].ndim == args[1].ndim and args[0].shape[-2] > 1)
    if not name.startswith("_foreach"):
        return 1
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)]
    fit = all(
        first.shape == other.shape and first.dtype == other.dtype
        for others in lists[1:]
        for first, other in zip(lists[0], others, strict=True)
    )
    return math.ceil(len(lists[0]) / TENSORS_A_LAUNCH) if fit else len(lists[0])


class _Generator(torch.Generator):
    """A generator of the stand-in, which PyTorch has none of; nothing is drawn from it. On the CPU, PyTorch's own."""

    device = DEVICE

    def __new__(cls, device: str | torch.device = "cpu") -> Any:
        return super().__new__(cls) if torch.device(device) == DEVICE else _PYTORCHS_OWN(device)


_PYTORCHS_OWN = torch.Generator


class Graph:
    """In place of ``torch.cuda.CUDAGraph``: remembers what was registered, and counts its replays."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        """As in PyTorch."""
        self.generators.append(generator)

    def replay(self) -> None:
        """Changes nothing: there are no contents to change."""
        self.replays += 1


@contextmanager
def stand_in() -> Iterator[list[Watch]]:
    """Inside, generators, streams and graphs can be had of the stand-in, and what is recorded is watched.

    Yields the watches of what was recorded so far.
    """
    watches: list[Watch] = []

    @contextmanager
    def recording(graph: Graph, **_: Any) -> Iterator[None]:
        with Watch() as watch:
            yield
        watches.append(watch)

    cuda = {
        "Stream": mock.MagicMock(),
        "current_stream": mock.MagicMock(),
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "synchronize": lambda: None,
        "CUDAGraph": Graph,
        "graph": recording,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        for name, fake in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, fake))
        yield watches


def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the stand-in."""
    return {k: v.to(DEVICE) for k, v in tensors.items()}

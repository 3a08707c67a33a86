"""Compiled pieces of an update: quick to call, and quick to start where the compiler's cache is warm.

A piece's guards say only what can change: its arguments, and whether gradients are on. Checking that every layer behind
``self`` is what it was took longer than some of the pieces themselves. For that, pieces are told apart by a key which
names all that their graphs depend on; without one, an agent of other settings would be given the graphs of the first.
"""

from __future__ import annotations

import functools
import gc
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from oneiros.algorithms.nn.vector_units import trust_vector_units

_OWN = re.compile(r"\bself\b")


def compiled(method: MethodType, key: str) -> Callable[..., Any]:
    """``method`` compiled for the shapes it is called with; raises where that would leave anything to Python.

    Methods of objects that have ``key`` in common share what is compiled.
    """
    given = method.__func__
    assert isinstance(given, FunctionType)
    code = _code_of(given.__code__, key)
    own = FunctionType(code, given.__globals__, given.__name__, given.__defaults__, given.__closure__)
    own.__kwdefaults__ = given.__kwdefaults__
    options: Any = {"guard_filter_fn": _arguments_alone}
    piece = torch.compile(MethodType(own, method.__self__), dynamic=False, fullgraph=True, options=options)
    traced = False

    def call(*arguments: Any) -> Any:
        nonlocal traced
        if traced:
            return piece(*arguments)
        traced = True
        # Tracing makes so many objects that collecting them in between is a tenth of its time.
        with _without_collections():
            return piece(*arguments)

    return call


@functools.cache
def _code_of(code: CodeType, key: str) -> CodeType:
    """A code object for each key: it is to this that the compiler ties its graphs."""
    return code.replace()


def _arguments_alone(guards: Sequence[Any]) -> list[bool]:
    """Which guards to keep: globals, and whatever hangs on ``self``, stay as they are."""
    return [not (guard.is_global or _OWN.search(guard.name)) for guard in guards]


@functools.cache
def make_ready(device: str) -> None:
    """Load PyTorch's compiler, once for a kind of device, such that it starts quickly where its cache is warm."""
    with _without_collections():
        functorch: Any = importlib.import_module("torch._functorch.config")
        importlib.import_module("torch._inductor.compile_fx")
    if device == "cpu":
        trust_vector_units()
    # A full collection, of which tracing sets off many, would go through the whole of PyTorch each time.
    gc.freeze()
    # Our custom gradients depend on their arguments alone, so that graphs which hold them may be kept.
    if hasattr(functorch, "autograd_cache_allow_custom_autograd_functions"):
        functorch.autograd_cache_allow_custom_autograd_functions = True


@contextmanager
def _without_collections() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

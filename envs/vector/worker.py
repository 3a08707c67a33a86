"""The process that one environment of a ``SubprocessVector`` lives in: ``python -m oneiros.envs.vector.worker``.

It is a fresh interpreter, not a fork: it holds none of the parent's threads, locks or memory, and a script without
``if __name__ == "__main__"`` may start it. It answers one message with one message, except that it says ``resetting``
first where a step turns out to need a reset. It ends when its parent does.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
from oneiros.envs import snapshot
from oneiros.envs.options import AnyEnv
from oneiros.envs.vector.buffer import ObservationBuffer
from oneiros.envs.vector.slot import Info, Slot

PARENT_POLL_SECONDS = 1.0


def main(connection_fd: int, memory_fd: int, parent: int) -> None:
    """Serve the parent process ``parent`` until it closes the connection."""
    # Ctrl-C reaches the whole group; the parent decides when to stop, and may want one more answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    connection = Connection(connection_fd)
    try:
        _serve(connection, memory_fd)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


def _serve(connection: Connection, memory_fd: int) -> None:
    """Build the environment, then answer requests about it."""
    pickled, index, num_envs, name = connection.recv()
    try:
        factory: Callable[[], AnyEnv] = cloudpickle.loads(pickled)
        env = factory()
        spaces = (env.observation_space, env.action_space, env.metadata, env.render_mode)
    except Exception as error:
        connection.send(("error", _portable(error)))
        return
    connection.send(("built", spaces))
    command, size = connection.recv()
    if command == "close":
        env.close()  # type: ignore[no-untyped-call]
        return
    memory = memoryview(mmap.mmap(memory_fd, size))
    buffer = ObservationBuffer(env.observation_space, num_envs, memory)
    slot = Slot(factory, buffer, index, name, env, before_recovery=lambda: connection.send(("resetting", None)))
    while True:
        command, payload = connection.recv()
        if command == "close":
            slot.close()
            connection.send(("closed", None))
            return
        try:
            answer = _answer(slot, command, payload)
        except Exception as error:
            connection.send(("error", _portable(error)))
        else:
            connection.send(("done", answer))


def _answer(slot: Slot, command: str, payload: Any) -> Any:
    if command == "step":
        reward, terminated, truncated, info, fault = slot.step(payload)
        return reward, terminated, truncated, _numbers(info), fault
    if command == "reset":
        info, fault = slot.reset(*payload)
        return _numbers(info), fault
    if command == "call":
        name, args, kwargs = payload
        value = slot.env.get_wrapper_attr(name)
        return value(*args, **kwargs) if callable(value) else value
    if command == "set":
        slot.env.set_wrapper_attr(*payload)
        return None
    if command == "take":
        return slot.ended, snapshot.take(slot.env)
    if command == "restore":
        slot.ended, state = payload
        snapshot.restore(slot.env, state)
        return None
    raise ValueError(f"an environment process was asked to {command!r}")


def _numbers(info: Info) -> Info:
    """The entries of an info that are worth sending at every step."""
    return {key: value for key, value in info.items() if isinstance(value, int | float | str) or _is_scalar(value)}


def _is_scalar(value: Any) -> bool:
    return getattr(value, "shape", None) == () and hasattr(value, "item")


def _portable(error: Exception) -> Exception:
    """The error itself where the parent can unpickle it, its text otherwise."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))

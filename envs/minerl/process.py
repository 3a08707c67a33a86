"""The process of one old-gym environment: started, asked, and ended with everything that it started itself."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from oneiros.envs.external.wire import Arrays, WireError, receive, send
from oneiros.envs.minerl import janitor

HERE = Path(__file__).parent
CHILD = HERE / "inside" / "child.py"
MAKE_SECONDS = 120.0
RESET_SECONDS = 240.0
"""The first one starts the game, which takes minutes on a slow machine."""
STEP_SECONDS = 30.0
CLOSE_SECONDS = 15.0
SWEEP_SECONDS = 60.0

log = logging.getLogger(__name__)


class ChildFailed(RuntimeError):
    """The process ended, said that it failed, or did not answer in time."""


class Outcome(NamedTuple):
    """What came of a reset or a step."""

    arrays: Arrays
    reward: float
    done: bool
    limited: bool
    """Whether a limit of time ended the episode."""


class Child:
    """One environment in a Python of its own; raises ``ChildFailed``, after which only ``close`` is of use."""

    def __init__(self, python: str | Path, wanted: Mapping[str, Any]) -> None:
        """Start ``python`` and make what is ``wanted`` there (``inside/child.py``)."""
        self.folder = Path(tempfile.mkdtemp(prefix="oneiros-minerl-"))
        self._mark = uuid.uuid4().hex
        self._channel, theirs = socket.socketpair()
        watched, self._lifeline = os.pipe()
        self.process: subprocess.Popen[bytes] | None = None
        self._closed = False
        try:
            with theirs:
                self.janitor = subprocess.Popen(
                    [sys.executable, "-P", str(HERE / "janitor.py"), str(watched), self._mark, str(self.folder)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(watched,),
                    start_new_session=True,
                )
                os.close(watched)
                self.process = self._start(str(python), theirs)
            made = self._ask(MAKE_SECONDS, "made", "make", **wanted)[1]
            self.observation_space: dict[str, Any] = made["observation_space"]
            self.action_space: dict[str, Any] = made["action_space"]
        except BaseException:
            self.kill()
            raise

    def _start(self, python: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment |= {janitor.VARIABLE: self._mark, "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1"}
        environment["MALMO_MINECRAFT_OUTPUT_LOGDIR"] = str(self.folder)
        if "DISPLAY" not in environment:
            # MineRL then starts an X server of the game's own.
            environment["MINERL_HEADLESS"] = "1"
        with open(self.folder / "output.txt", "wb") as output:
            return subprocess.Popen(
                [python, "-I", str(CHILD), str(theirs.fileno())],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def reset(self, seed: int | None) -> Outcome:
        """Begin an episode."""
        arrays, _ = self._ask(RESET_SECONDS, "observation", "reset", seed=seed)
        return Outcome(arrays, 0.0, False, False)

    def step(self, action: Any) -> Outcome:
        """Act for one step; ``action`` is made of what JSON knows."""
        arrays, said = self._ask(STEP_SECONDS, "observation", "step", action=action)
        return Outcome(arrays, said["reward"], said["done"], said["limited"])

    def close(self) -> None:
        """Let it end by itself, and see to it that it does."""
        if self._closed or self.process is None:
            return self.kill()
        with contextlib.suppress(WireError, TimeoutError, subprocess.TimeoutExpired):
            self._channel.settimeout(CLOSE_SECONDS)
            send(self._channel, "close")
            self.process.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process, the game, and whatever else they started; remove what they wrote."""
        if self._closed:
            return
        self._closed = True
        self._channel.close()
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait(CLOSE_SECONDS)
        os.close(self._lifeline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.janitor.wait(SWEEP_SECONDS)

    def _ask(self, seconds: float, wanted: str, kind: str, **fields: Any) -> tuple[Arrays, dict[str, Any]]:
        try:
            self._channel.settimeout(seconds)
            send(self._channel, kind, **fields)
            answer, arrays, said = receive(self._channel)
        except TimeoutError as error:
            raise ChildFailed(f"no answer to {kind!r} came within {seconds:.0f} s{self._last_words()}") from error
        except (WireError, OSError) as error:
            raise ChildFailed(f"the process ended{self._last_words()}") from error
        if answer != wanted:
            raise ChildFailed(str(said.get("reason", f"it answered {answer!r} to {kind!r}")))
        return arrays, said

    def _last_words(self) -> str:
        """The last line of what it printed, for the message."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "output.txt").read_text(errors="replace").split("\n")
            if words := [line.strip() for line in lines if line.strip()]:
                return f": {words[-1]}"
        return ""


class Keeper:
    """Has a child while one is needed; one that fails is ended, counted, and replaced with the next reset."""

    def __init__(self, python: str | Path, wanted: Mapping[str, Any], first: Child | None = None) -> None:
        self.failures = 0
        self.child = first
        self._python, self._wanted = python, wanted

    def reset(self, seed: int | None) -> Outcome:
        """Begin an episode; a child that fails on the way there is replaced once. Raises ``ChildFailed``."""
        try:
            return self._reset(seed)
        except ChildFailed:
            return self._reset(seed)

    def _reset(self, seed: int | None) -> Outcome:
        try:
            if self.child is None:
                self.child = Child(self._python, self._wanted)
            return self.child.reset(seed)
        except ChildFailed as error:
            self._lose(error)
            raise

    def step(self, action: Any) -> Outcome:
        """Act for one step. Raises ``ChildFailed``; the episode is then over."""
        assert self.child is not None
        try:
            return self.child.step(action)
        except ChildFailed as error:
            self._lose(error)
            raise

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.close()
            self.child = None

    def _lose(self, error: ChildFailed) -> None:
        self.failures += 1
        if self.failures == 1:
            log.warning("minerl: a game is replaced (the first time; further ones are only counted): %s", error)
        if self.child is not None:
            self.child.kill()
            self.child = None

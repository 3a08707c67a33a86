"""One running game: a process of its own that lives for one episode and advances by one step when told to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from oneiros.envs.contract import MissingDependency
from oneiros.envs.luanti import installation
from oneiros.envs.luanti.memory import SharedMemory
from oneiros.envs.luanti.settings import WORLD_FILE, World, configuration

START_SECONDS = 120.0
STEP_SECONDS = 30.0
END_SECONDS = 5.0


class InstanceFailed(RuntimeError):
    """The game ended, or did not answer in time."""


class Instance:
    """Starts a world; ``wait`` returns when its first picture is there, and ``step`` after each further one."""

    def __init__(self, world: World, seed: int, display: str, kinds: int) -> None:
        program = installation.program("minetest")
        if program is None:
            raise MissingDependency(f"luanti needs minetest, which {installation.APT} installs")
        self.seed = seed
        self.process: subprocess.Popen[bytes] | None = None
        self.memory = SharedMemory(world.height, world.width, kinds)
        self.memory["seed"] = seed & 0x7FFFFFFF
        self._waiting = True
        self._served = 0
        self._deadline = time.monotonic() + START_SECONDS
        self._ours, theirs = socket.socketpair()
        self.folder = Path(tempfile.mkdtemp(prefix="oneiros-luanti-", dir=_scratch()))
        try:
            with theirs:
                self.process = self._start(program, world, display, theirs)
        except BaseException:
            self.close()
            raise

    def _start(self, program: str, world: World, display: str, theirs: socket.socket) -> subprocess.Popen[bytes]:
        (self.folder / "world").mkdir()
        (self.folder / "world" / "world.mt").write_text(WORLD_FILE.format(game=installation.GAME))
        (self.folder / "minetest.conf").write_text(configuration(world, self.seed))
        installation.link_game(self.folder / "games")
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "MINETEST_USER_PATH": str(self.folder),
            "MINETEST_SUBGAME_PATH": str(self.folder / "games"),
            "DISPLAY": display,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "GALLIUM_DRIVER": "llvmpipe",
            "LP_NUM_THREADS": "0",
            "LC_ALL": "C",
            "LD_PRELOAD": str(installation.shim()),
            "ONEIROS_LUANTI_OWNER": str(os.getpid()),
            "ONEIROS_LUANTI_MEMORY": str(self.memory.file),
            "ONEIROS_LUANTI_CHANNEL": str(theirs.fileno()),
            "ONEIROS_LUANTI_SCRATCH": str(self.folder),
        }
        command = [program, "--go", "--world", "world", "--gameid", installation.GAME, "--name", "agent"]
        options = ["--config", "minetest.conf", "--logfile", "log.txt"]
        with open(self.folder / "output.txt", "wb") as output:
            return subprocess.Popen(
                [*command, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(self.memory.file, theirs.fileno()),
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process is not None and self.process.poll() is None

    def wait(self) -> None:
        """Wait for the first picture; raises ``InstanceFailed``."""
        self._receive(self._deadline)
        self._served = int(self.memory.value("server_steps"))

    def step(self, keys: int = 0, turn_x: int = 0, turn_y: int = 0, command: int = 0) -> None:
        """Advance by one step with these keys held; raises ``InstanceFailed``."""
        memory = self.memory
        memory["keys"], memory["turn_x"], memory["turn_y"], memory["command"] = keys, turn_x, turn_y, command
        if self._waiting:
            raise InstanceFailed("the game has not begun")
        try:
            self._ours.send(b"G")
        except OSError as error:
            raise InstanceFailed(f"the game ended{self._last_words()}") from error
        self._waiting = True
        self._receive(time.monotonic() + STEP_SECONDS)
        self._served += 1
        if int(memory.value("server_steps")) != self._served:
            raise InstanceFailed(f"the game's server no longer runs{self._last_words()}")

    def ask(self, question: str, **details: Any) -> None:
        """Ask the game's oracle, which answers in the next step."""
        self.memory.write_request(json.dumps({"ask": question, **details}).encode())

    def answer(self) -> Any:
        """What the oracle said to the last question; raises ``InstanceFailed`` where it did not answer."""
        answer = self.memory.read_answer()
        if answer is None:
            raise InstanceFailed("the oracle did not answer")
        return json.loads(answer)[0]

    def close(self) -> None:
        """End the process, whatever it does, and remove what it wrote."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.send_signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
        self._ours.close()
        self.memory.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _receive(self, deadline: float) -> None:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise InstanceFailed(f"the game did not answer in time{self._last_words()}")
        try:
            answer = self._ours.recv(1)
        except OSError:
            answer = b""
        if answer != b"F":
            raise InstanceFailed(f"the game ended{self._last_words()}")
        self._waiting = False

    def _last_words(self) -> str:
        """The last error in its log, for the message."""
        for name in ("output.txt", "log.txt"):
            with contextlib.suppress(OSError):
                lines = (self.folder / name).read_text(errors="replace").splitlines()
                errors = [line for line in lines if "ERROR" in line or "oneiros:" in line]
                if errors:
                    return f": {errors[-1].strip()}"
        return ""


def _scratch() -> str | None:
    """Memory rather than a disk, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

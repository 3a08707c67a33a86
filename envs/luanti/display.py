"""A headless X server that ends with the process that started it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from pathlib import Path

from oneiros.envs.contract import MissingDependency
from oneiros.envs.luanti import installation

START_SECONDS = 30.0
END_SECONDS = 5.0


class DisplayFailed(RuntimeError):
    """The X server did not start."""


class Display:
    """One Xvfb on a display of its own, chosen by the server itself."""

    def __init__(self, height: int, width: int) -> None:
        xvfb = installation.program("Xvfb")
        if xvfb is None:
            raise MissingDependency(f"luanti needs Xvfb, which {installation.APT} installs")
        environment = {
            **os.environ,
            "LD_PRELOAD": str(installation.shim()),
            "ONEIROS_LUANTI_OWNER": str(os.getpid()),
        }
        screen = f"{max(width, 640)}x{max(height, 480)}x24"
        reads, writes = os.pipe()
        try:
            self.process = subprocess.Popen(
                [xvfb, "-displayfd", str(writes), "-screen", "0", screen, "-nolisten", "tcp", "-noreset", "-ac"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=(writes,),
                start_new_session=True,
            )
        finally:
            os.close(writes)
        try:
            self.name = f":{self._number(reads)}"
        except BaseException:
            self.close()
            raise
        finally:
            os.close(reads)

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the server, and what it leaves when it has to be killed."""
        if self.alive:
            self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0 and hasattr(self, "name"):
            for leftover in (f"/tmp/.X{self.name[1:]}-lock", f"/tmp/.X11-unix/X{self.name[1:]}"):
                with contextlib.suppress(OSError):
                    Path(leftover).unlink()

    def _number(self, reads: int) -> int:
        text = b""
        deadline = time.monotonic() + START_SECONDS
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([reads], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(reads, 16) if ready else b""
            if not piece:
                raise DisplayFailed("the X server Xvfb did not start")
            text += piece
        return int(text)

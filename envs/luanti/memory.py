"""The memory that the driver shares with one game: laid out as in ``native/shim.c`` and the game's ``memory.lua``."""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray

FIELDS = (
    *("keys", "turn_x", "turn_y", "command", "phase", "width", "height", "frames"),
    *("request", "request_bytes", "answer", "answer_bytes", "settling", "map_packets", "capacity", "seed"),
)
STATE = (
    *("x", "y", "z", "yaw", "pitch", "health", "hunger", "breath", "breath_max", "died", "server_steps"),
    *("time_of_day", "wielded", "light", "velocity_y"),
)
STATE_OFFSET = 256
INVENTORY_OFFSET = 1024
REQUEST_OFFSET = 4096
ANSWER_OFFSET = 12288
FRAME_OFFSET = 65536
MOST_REQUEST_BYTES = ANSWER_OFFSET - REQUEST_OFFSET


class SharedMemory:
    """Anonymous memory, known by its file descriptor only: nothing is left of it when both processes are gone."""

    def __init__(self, height: int, width: int, kinds: int) -> None:
        self.file = os.memfd_create("oneiros-luanti", os.MFD_CLOEXEC)
        size = FRAME_OFFSET + height * width * 3
        os.ftruncate(self.file, size)
        self._map = mmap.mmap(self.file, size)
        self._numbers = np.frombuffer(self._map, np.int32, len(FIELDS))
        self.state = np.frombuffer(self._map, np.float64, len(STATE), STATE_OFFSET)
        self.inventory: NDArray[np.int32] = np.frombuffer(self._map, np.int32, kinds, INVENTORY_OFFSET)
        self._frame = np.frombuffer(self._map, np.uint8, height * width * 3, FRAME_OFFSET).reshape(height, width, 3)

    def __getitem__(self, name: str) -> int:
        return int(self._numbers[FIELDS.index(name)])

    def __setitem__(self, name: str, value: int) -> None:
        self._numbers[FIELDS.index(name)] = value

    def value(self, name: str) -> float:
        """One number of the game's state."""
        return float(self.state[STATE.index(name)])

    def picture(self) -> NDArray[np.uint8]:
        """The last picture, ``(height, width, 3)``, the top row first; a copy."""
        return self._frame[::-1].copy()

    def write_request(self, text: bytes) -> None:
        """Put a question where the game reads it."""
        if len(text) > MOST_REQUEST_BYTES:
            raise ValueError(f"a question has at most {MOST_REQUEST_BYTES} bytes")
        self._map[REQUEST_OFFSET : REQUEST_OFFSET + len(text)] = text
        self["request_bytes"] = len(text)
        self["request"] = self["request"] + 1

    def read_answer(self) -> bytes | None:
        """The answer to the last question; None before it is there."""
        if self["answer"] != self["request"]:
            return None
        return bytes(self._map[ANSWER_OFFSET : ANSWER_OFFSET + self["answer_bytes"]])

    def close(self) -> None:
        """Give the memory back; its arrays must not be used afterwards."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

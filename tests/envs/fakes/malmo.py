"""A server that talks like Malmo, the mod of Minecraft that MineRL's games run. There is no game behind it.

What it says is made up, so nothing that comes from it may be shown as a result. Messages have their length, a
big-endian unsigned int, in front. MineRL's ``_multiagent.py`` is the client whose questions it answers.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading

import numpy as np


class Malmo:
    """Listens on a free port of this host; a thread answers each connection until ``close``."""

    def __init__(self, height: int = 64, width: int = 64, longest: int = 10_000, given: tuple[str, ...] = ()) -> None:
        """``given``: the kinds of items of which every mission begins with one."""
        self.height, self.width, self.longest, self.given = height, width, longest, given
        self.missions: list[str] = []
        self.tokens: list[str] = []
        self.commands: list[str] = []
        self.silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._begin()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for connection in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _begin(self) -> None:
        self.steps, self.held, self.life, self.hand = 0, dict.fromkeys(self.given, 1), 20.0, "air"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # Without it each of a step's small answers waits for the one before to be acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (message := _receive(connection)) is not None:
                self._answer(connection, message.decode())
        except OSError:
            return

    def _answer(self, connection: socket.socket, message: str) -> None:
        kind = re.match(r"<(\w+)", message)
        match kind[1] if kind else "":
            case "MalmoEnv0" | "StepServer" | "Disconnect":
                return
            case "Quit":
                _send(connection, struct.pack("!I", 1))
            case "MissionInit":
                self.missions.append(message)
                self.tokens.append((_receive(connection) or b"").decode())
                self._begin()
                _send(connection, struct.pack("!I", 1))
            case "Peek":
                for part in (self._frame(), self._said(), struct.pack("!b", 0)):
                    _send(connection, part)
            case "StepClient0":
                if self.silent.is_set():
                    return
                self._play(re.sub(r"<[^>]*>", "", message).split("\n"))
                done = self.life <= 0 or self.steps >= self.longest
                for part in (self._frame(), struct.pack("!dbb", 0.5, done, 1), self._said()):
                    _send(connection, part)
            case _:
                raise AssertionError(f"MineRL asks something new: {message[:80]}")

    def _play(self, commands: list[str]) -> None:
        self.steps += 1
        self.commands = commands
        done = dict(command.split(" ", 1) for command in commands)
        if done.get("attack") == "1":
            self._gain("log2" if self.steps % 2 else "log")
        for verb in ("craft", "craftNearby", "smeltNearby"):
            if done.get(verb, "none") != "none":
                self._gain(done[verb])
        if done.get("equip", "none") != "none":
            self.hand = done["equip"]
        if done.get("use") == "1" and self.held.get(self.hand):
            self.held[self.hand] -= 1
        if done.get("back") == "1":
            self.life -= 5

    def _gain(self, item: str) -> None:
        self.held[item] = self.held.get(item, 0) + 1

    def _frame(self) -> bytes:
        """From the bottom row to the top one, as the game sends it: the top one is bright."""
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        frame[-1] = 200
        return frame.tobytes()

    def _said(self) -> bytes:
        stacks = [{"type": name, "quantity": count, "metadata": 0} for name, count in self.held.items()]
        stats = {"life": self.life, "food": 18, "air": 150, "is_alive": self.life > 0, "score": 0, "saturation": 5.0}
        hand = {"type": self.hand, "metadata": 0, "damage": 0, "maxDamage": 0}
        said = {"inventory": stacks, "equipped_items": {"mainhand": hand}, **stats, "xp": 0, "compassAngle": 7.5}
        return json.dumps({**said, "distanceToCompassTarget": 3.0}).encode()


def _receive(connection: socket.socket) -> bytes | None:
    head = _exactly(connection, 4)
    return None if head is None else _exactly(connection, struct.unpack("!I", head)[0])


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(struct.pack("!I", len(data)) + data)

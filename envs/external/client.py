"""The side of the robot, instrument or simulator: numpy and Gymnasium's spaces, no torch, no Ray.

with Client("trainer", 7431, observation_space, action_space) as agent:
    while True:
        try:
            action = agent.begin(robot.observe())
            while action is not None:
                obs, reward, terminated, truncated = robot.do(action)
                action = agent.step(obs, reward, terminated, truncated)
        except EpisodeLost:
            pass
        except ConnectionError:
            break
"""

from __future__ import annotations

import contextlib
import socket
import time
from types import TracebackType
from typing import Any, Self

from gymnasium import spaces
from oneiros.envs.external.trees import flatten, unflatten
from oneiros.envs.external.wire import VERSION, WireError, receive, send
from oneiros.envs.space_json import space_to_json


class Refused(RuntimeError):
    """The trainer does not want this environment: other spaces, a wrong token, another version."""


class EpisodeLost(RuntimeError):
    """The connection broke, or the trainer gave the episode up; begin another one."""


class Client:
    """Asks a trainer for actions. ``begin`` connects, and connects again after an ``EpisodeLost``.

    Args:
        host, port: where the trainer listens; of several runners each listens on one of the next ``ports``.
        observation_space, action_space: Gymnasium's, the same for all environments of a run.
        ports: how many ports, from ``port`` on, are tried for a trainer that has no environment yet.
        token: the secret that the trainer was given, if any.
        timeout: seconds to wait for an action.
        patience: seconds to look for a trainer before ``ConnectionError``; may be changed later.
    """

    def __init__(
        self,
        host: str,
        port: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        ports: int = 1,
        token: str | None = None,
        timeout: float = 600.0,
        patience: float = 600.0,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._addresses = [(host, port + i) for i in range(ports)]
        self._hello: dict[str, Any] = {
            "version": VERSION,
            "token": token,
            "observation_space": space_to_json(observation_space),
            "action_space": space_to_json(action_space),
        }
        self.patience = patience
        self._timeout = timeout
        self._connection: socket.socket | None = None

    def begin(self, obs: Any) -> Any:
        """Begin an episode with its first observation; returns the first action.

        Raises ``Refused``, ``ConnectionError`` if no trainer is found in time, ``EpisodeLost``.
        """
        end = time.monotonic() + self.patience
        while True:
            if self._connection is None:
                self._connection = self._connect()
            try:
                return self._ask("begin", obs, {})
            except EpisodeLost:
                # Nothing has happened yet, so nothing is lost: another trainer may have taken the place of this one.
                if time.monotonic() >= end:
                    raise

    def step(self, obs: Any, reward: float, terminated: bool = False, truncated: bool = False) -> Any:
        """Say what came of the last action; returns the next one, or None if the episode is over.

        Raises ``EpisodeLost``.
        """
        fields = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)}
        if self._connection is None:
            raise EpisodeLost("there is no episode: call begin first")
        if terminated or truncated:
            self._send("step", obs, fields)
            return None
        return self._ask("step", obs, fields)

    def close(self) -> None:
        """Leave; an episode that is not over counts as cut short."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
        self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, kind: str, obs: Any, fields: dict[str, Any]) -> None:
        assert self._connection is not None
        try:
            send(self._connection, kind, flatten(self.observation_space, obs), **fields)
        except (WireError, TimeoutError) as error:
            self.close()
            raise EpisodeLost(str(error)) from error

    def _ask(self, kind: str, obs: Any, fields: dict[str, Any]) -> Any:
        self._send(kind, obs, fields)
        assert self._connection is not None
        try:
            answer, arrays, said = receive(self._connection)
        except (WireError, TimeoutError) as error:
            self.close()
            raise EpisodeLost(f"no action came: {error}") from error
        if answer != "action":
            self.close()
            raise EpisodeLost(str(said.get("reason", f"the trainer answered {answer!r}")))
        return unflatten(self.action_space, arrays)

    def _connect(self) -> socket.socket:
        """Find a trainer that wants an environment."""
        end = time.monotonic() + self.patience
        why = "nobody listens"
        while True:
            for host, port in self._addresses:
                try:
                    connection = socket.create_connection((host, port), timeout=min(10.0, self._timeout))
                except OSError as error:
                    why = str(error)
                    continue
                try:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    send(connection, "hello", **self._hello)
                    kind, _, said = receive(connection)
                except (WireError, TimeoutError) as error:
                    why = str(error)
                    connection.close()
                    continue
                if kind == "welcome":
                    connection.settimeout(self._timeout)
                    return connection
                connection.close()
                if kind == "refused":
                    raise Refused(str(said.get("reason")))
                why = "every trainer has an environment already"
            if time.monotonic() >= end:
                host, port = self._addresses[0]
                raise ConnectionError(f"no trainer took this environment at {host}:{port} in {self.patience} s: {why}")
            time.sleep(min(0.5, self.patience))

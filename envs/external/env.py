"""The trainer's side: a Gymnasium environment whose steps are made by a client at the other end of a socket."""

from __future__ import annotations

import contextlib
import hmac
import logging
import socket
import time
from typing import Any

import gymnasium
from gymnasium import spaces
from oneiros.envs.contract import InvalidOption
from oneiros.envs.external.trees import flatten, unflatten
from oneiros.envs.external.wire import VERSION, WireError, receive, send
from oneiros.envs.space_json import describe, space_from_json, space_to_json
from oneiros.envs.vector.fault import EnvironmentFault

log = logging.getLogger(__name__)

PORTS = 64
"""How many ports are tried, from the one that was asked for, until one is free."""
HELLO_SECONDS = 10.0


class ExternalEnv(gymnasium.Env[Any, Any]):
    """Takes one client at a time; whoever else connects is told that this trainer is busy.

    A client that leaves or says nothing for ``timeout`` seconds costs the rest of its episode: a step then raises
    ``EnvironmentFault``, after which ``reset`` waits for the next client, ``patience`` seconds at most.
    """

    def __init__(
        self,
        host: str,
        port: int,
        timeout: float,
        patience: float,
        token: str | None = None,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
    ) -> None:
        """Without spaces, waits for a first client and takes its. Raises ``InvalidOption`` if no port is free."""
        self._timeout, self._patience, self._token = timeout, patience, token
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        """The port that this environment listens on: the first free one from the port asked for."""
        self._client: socket.socket | None = None
        self._known: tuple[spaces.Space[Any], spaces.Space[Any]] | None = None
        if observation_space is not None and action_space is not None:
            self._known = observation_space, action_space
        else:
            log.warning("waiting for an external environment at %s:%d", host, self.port)
            try:
                self._client = self._welcome()
            except EnvironmentFault as fault:
                self.close()
                raise InvalidOption(
                    f"no external environment came to {host}:{self.port}: {fault.detail} (every environment of "
                    "num_envs_per_runner, and those of an evaluation, needs a client of its own, on the next port)"
                ) from fault
        assert self._known is not None
        self.observation_space, self.action_space = self._known

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Wait for an episode to begin; raises ``EnvironmentFault`` if none does. The seed is the client's own."""
        super().reset(seed=seed)
        end = time.monotonic() + self._patience
        while True:
            if self._client is None:
                self._client = self._welcome(end)
            try:
                kind, obs, _ = self._hear(max(0.1, min(self._timeout, end - time.monotonic())))
            except EnvironmentFault:
                # One that went away between two episodes costs nothing.
                if time.monotonic() >= end:
                    raise
                continue
            if kind == "begin":
                return obs, {}
            self._drop("an episode begins with 'begin'")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Send the action and wait for what comes of it; raises ``EnvironmentFault`` if the client is lost."""
        if self._client is None:
            raise EnvironmentFault("died", "the client is gone")
        try:
            self._client.settimeout(self._timeout)
            send(self._client, "action", flatten(self.action_space, action))
        except (WireError, TimeoutError) as error:
            self._drop(None)
            raise EnvironmentFault("died", f"the client cannot be reached: {error}") from error
        kind, obs, said = self._hear(self._timeout)
        if kind != "step" or "reward" not in said:
            self._drop("a step with its reward was expected")
            raise EnvironmentFault("raised", f"the client sent {kind!r} where a step with its reward was expected")
        return obs, said["reward"], bool(said.get("terminated")), bool(said.get("truncated")), {}

    def close(self) -> None:
        """Let the client go and stop listening."""
        self._drop("the trainer ends")
        with contextlib.suppress(OSError):
            self._listener.close()

    def _hear(self, seconds: float) -> tuple[str, Any, dict[str, Any]]:
        """The next message and its observation; turns busy clients away meanwhile."""
        assert self._client is not None
        self._turn_away()
        self._client.settimeout(seconds)
        try:
            kind, arrays, said = receive(self._client)
            return kind, unflatten(self.observation_space, arrays), said
        except TimeoutError as error:
            self._drop(f"nothing was heard for {seconds:.0f} s")
            raise EnvironmentFault("hang", f"the client said nothing for {seconds:.0f} s") from error
        except WireError as error:
            self._drop(None)
            raise EnvironmentFault("died", f"the client left: {error}") from error
        except ValueError as error:
            self._drop(f"the observation cannot be used: {error}")
            raise EnvironmentFault("structure", str(error)) from error

    def _welcome(self, end: float | None = None) -> socket.socket:
        """Wait for a client of the right spaces."""
        end = time.monotonic() + self._patience if end is None else end
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise EnvironmentFault("hang", f"no client came within {self._patience:.0f} s")
            self._listener.settimeout(left)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(HELLO_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                reason = self._refuse(connection)
                send(connection, "refused", reason=reason) if reason else send(connection, "welcome")
            except (WireError, TimeoutError, ValueError, KeyError, TypeError) as error:
                reason = str(error)
            if not reason:
                return connection
            log.warning("an external environment was refused: %s", reason)
            connection.close()

    def _refuse(self, connection: socket.socket) -> str | None:
        """Why this client is not wanted, if it is not; its spaces become this environment's if there are none yet."""
        kind, _, said = receive(connection)
        if kind != "hello" or said.get("version") != VERSION:
            return f"the client must say hello in version {VERSION}, not {kind!r} in {said.get('version')!r}"
        if self._token is not None and not hmac.compare_digest(str(said.get("token")).encode(), self._token.encode()):
            return "the token is wrong"
        observation, action = said["observation_space"], said["action_space"]
        if self._known is None:
            self._known = space_from_json(observation), space_from_json(action)
            return None
        for name, own, theirs in zip(("observation", "action"), self._known, (observation, action), strict=True):
            if space_to_json(own) != theirs:
                return f"the {name} space is {describe(theirs)}, but this run's is {describe(space_to_json(own))}"
        return None

    def _turn_away(self) -> None:
        """Tell whoever waits that there is a client already."""
        self._listener.settimeout(0)
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.settimeout(1.0)
                send(connection, "busy")

    def _drop(self, reason: str | None) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                if reason is not None:
                    self._client.settimeout(1.0)
                    send(self._client, "lost", reason=reason)
                self._client.close()
        self._client = None


def _listen(host: str, port: int) -> socket.socket:
    last: OSError | None = None
    for candidate in range(port, port + PORTS) if port else (0,):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(16)
        except OSError as error:
            listener.close()
            last = error
            continue
        return listener
    raise InvalidOption(f"nothing can listen on {host}, ports {port} to {port + PORTS - 1}: {last}")

"""``external/socket``: a robot, instrument or simulator that steps itself and asks for actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneiros.envs.contract import NOTHING, InvalidOption, UnknownEnvironment
from oneiros.envs.external.env import ExternalEnv
from oneiros.envs.options import GENERIC, AnyEnv
from oneiros.envs.space_json import space_from_json

PORT = 7431


class ExternalSuite:
    """Environments at the other end of a socket; ``oneiros.envs.external.client`` is their side of it."""

    name = "external"
    description = "an environment elsewhere that steps itself and asks for actions over a socket"
    requirement = NOTHING

    def tasks(self) -> Sequence[str]:
        """The one there is."""
        return ["socket"]

    def make(
        self,
        task: str,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        timeout: float = 60.0,
        patience: float = 600.0,
        token: str | None = None,
        observation_space: dict[str, Any] | None = None,
        action_space: dict[str, Any] | None = None,
        **unknown: Any,
    ) -> AnyEnv:
        """Listen on ``host`` (this machine alone, unless told otherwise) and the first free port from ``port`` on.

        ``timeout``: seconds that a client may take over a step. ``patience``: seconds to wait for a client. ``token``:
        a secret that clients must show. The spaces are those of the first client, or given as JSON
        (``oneiros.envs.space_json``), which spares waiting for it.
        """
        if task != "socket":
            raise UnknownEnvironment()
        if unknown:
            own = ["host", "port", "timeout", "patience", "token", "observation_space", "action_space"]
            raise InvalidOption(
                f"external/socket takes no option {min(unknown)!r}: there are {', '.join([*own, *GENERIC])}"
            )
        if not isinstance(port, int) or not 0 <= port < 65536:
            raise InvalidOption(f"the option port is a number from 0 to 65535, not {port!r}")
        for name, value in (("timeout", timeout), ("patience", patience)):
            if not isinstance(value, int | float) or not value > 0:
                raise InvalidOption(f"the option {name} is a number of seconds above 0, not {value!r}")
        spaces = [None if s is None else space_from_json(s) for s in (observation_space, action_space)]
        return ExternalEnv(host, port, float(timeout), float(patience), token, *spaces)


SUITE = ExternalSuite()

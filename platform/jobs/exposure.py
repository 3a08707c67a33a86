"""Servers that anybody on the network could use: Ray's dashboard runs whatever it is sent."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import psutil

DASHBOARDS = {"ray": "/api/version", "mlflow": "/version"}
"""What answers without a token where none is wanted."""
RAY_PORT = 8265
MLFLOW_PORT = 5000
SECONDS = 2.0


@dataclass(frozen=True)
class Exposure:
    """A server of this machine's that listens for everybody and asks nobody who they are."""

    kind: str
    address: str
    mend: str


_MENDS = {
    "ray": "start Ray with --dashboard-host=127.0.0.1, or with RAY_AUTH_MODE=token",
    "mlflow": "start it with --host 127.0.0.1, or behind a proxy that wants a token (deploy/mlflow)",
}


def exposures() -> Iterator[Exposure]:
    """Look at this machine's listening sockets for a Ray dashboard or an MLflow server that is open to the network."""
    for address, port in _listening():
        kind = _kind(port)
        if kind is None or not _is_open(address):
            continue
        host = "127.0.0.1" if address in ("0.0.0.0", "::") else f"[{address}]" if ":" in address else address
        if answers_anybody(f"http://{host}:{port}", kind):
            yield Exposure(kind, f"{address}:{port}", _MENDS[kind])


def answers_anybody(uri: str, kind: str) -> bool:
    """Whether the server at ``uri`` answers without a token."""
    try:
        with urlopen(Request(uri + DASHBOARDS[kind]), timeout=SECONDS) as answer:
            return bool(answer.status == 200)
    except (HTTPError, URLError, OSError):
        return False


def is_exposed_uri(uri: str) -> bool:
    """Whether tokens and data that are sent to ``uri`` can be read on the way: plain HTTP to another host."""
    parsed = urlparse(uri)
    if parsed.scheme != "http" or parsed.hostname is None:
        return False
    return parsed.hostname != "localhost" and _is_open(parsed.hostname)


def _listening() -> Iterator[tuple[str, int]]:
    """Addresses and ports of this machine's TCP servers; none where the system does not say."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return
    seen = set()
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address not in seen:
            seen.add(address)
            yield address.ip, address.port


def _kind(port: int) -> str | None:
    ports = {RAY_PORT: "ray", MLFLOW_PORT: "mlflow"}
    for variable, kind in (("RAY_API_SERVER_ADDRESS", "ray"), ("MLFLOW_TRACKING_URI", "mlflow")):
        named = urlparse(os.environ.get(variable, "")).port if "://" in os.environ.get(variable, "") else None
        if named is not None:
            ports[named] = kind
    return ports.get(port)


def _is_open(host: str) -> bool:
    """Whether it can be reached from elsewhere; a name may be anything, so it counts as such."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True

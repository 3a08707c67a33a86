"""Messages between an external environment and its trainer: a JSON head, then the arrays' bytes; nothing is unpickled.

``4 bytes`` big-endian length of the head, the head (UTF-8 JSON with ``type``, ``arrays``: name, dtype and shape of
each, and any further fields), then the arrays one after another, contiguous and little-endian.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

VERSION = 1
MOST_HEAD = 1 << 20
MOST_PAYLOAD = 1 << 28
DTYPES = frozenset(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)

# MineRL's Python, which runs this file too, may be 3.8, where only text can say this.
Arrays: TypeAlias = "dict[str, NDArray[Any]]"


class WireError(ConnectionError):
    """The other end closed the connection, or sent what is no message."""


def send(connection: socket.socket, kind: str, arrays: Mapping[str, Any] | None = None, **fields: Any) -> None:
    """Send one message; raises ``WireError`` if the connection is gone, ``TimeoutError`` if it does not take it."""
    parts = {name: np.asarray(value) for name, value in (arrays or {}).items()}
    listed = [{"name": n, "dtype": str(a.dtype), "shape": list(a.shape)} for n, a in parts.items()]
    head = json.dumps({"type": kind, "arrays": listed, **fields}).encode()
    bodies = [np.ascontiguousarray(a, a.dtype.newbyteorder("<")).tobytes() for a in parts.values()]
    try:
        connection.sendall(b"".join([struct.pack(">I", len(head)), head, *bodies]))
    except TimeoutError:
        raise
    except OSError as error:
        raise WireError(f"the connection was lost: {error}") from error


def receive(connection: socket.socket) -> tuple[str, Arrays, dict[str, Any]]:
    """Return type, arrays and fields of the next message; raises ``WireError``, or ``TimeoutError`` as the socket's."""
    (length,) = struct.unpack(">I", _exactly(connection, 4))
    if length > MOST_HEAD:
        raise WireError(f"a message's head of {length} bytes was announced; {MOST_HEAD} are the most")
    try:
        head = json.loads(_exactly(connection, length))
        listed = [(str(a["name"]), str(a["dtype"]), tuple(int(n) for n in a["shape"])) for a in head.pop("arrays")]
        kind = str(head.pop("type"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError(f"a message's head cannot be read: {error!r}") from error
    arrays: Arrays = {}
    for name, dtype, shape in listed:
        if dtype not in DTYPES or any(n < 0 for n in shape):
            raise WireError(f"array {name!r} is announced as {dtype} of shape {shape}")
        little = np.dtype(dtype).newbyteorder("<")
        size = prod(shape) * little.itemsize
        if size > MOST_PAYLOAD:
            raise WireError(f"array {name!r} is announced with {size} bytes; {MOST_PAYLOAD} are the most")
        arrays[name] = np.frombuffer(_exactly(connection, size), little).astype(dtype).reshape(shape)
    return kind, arrays, head


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = connection.recv(min(count - len(data), 1 << 20))
        except TimeoutError:
            raise
        except OSError as error:
            raise WireError(f"the connection was lost: {error}") from error
        if not part:
            raise WireError("the other end closed the connection")
        data += part
    return bytes(data)

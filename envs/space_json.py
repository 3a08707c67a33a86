"""Gymnasium spaces as JSON: comparable, readable without running code, and the same on the wire and on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import UnsupportedSpace

Space = spaces.Space[Any]


def space_to_json(space: Space) -> dict[str, Any]:
    """Describe ``space``; raises ``UnsupportedSpace`` for a kind that has no description."""
    match space:
        case spaces.Box():
            return {
                "kind": "Box",
                "shape": list(space.shape),
                "dtype": str(space.dtype),
                "low": _bound_to_json(space.low),
                "high": _bound_to_json(space.high),
            }
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": str(space.dtype)}
        case spaces.MultiDiscrete():
            return {
                "kind": "MultiDiscrete",
                "nvec": space.nvec.tolist(),
                "start": np.asarray(space.start).tolist(),
                "dtype": str(space.dtype),
            }
        case spaces.MultiBinary():
            return {
                "kind": "MultiBinary",
                "n": list(space.shape) if isinstance(space.n, tuple | list) else int(space.n),
            }
        case spaces.Text():
            return {
                "kind": "Text",
                "min_length": space.min_length,
                "max_length": space.max_length,
                "charset": "".join(sorted(space.characters)),
            }
        case spaces.Dict():
            return {"kind": "Dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
        case spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    raise UnsupportedSpace(f"a {type(space).__name__} space cannot be described in JSON")


def space_from_json(description: dict[str, Any]) -> Space:
    """Rebuild the space that ``space_to_json`` described; raises ``UnsupportedSpace`` for an unknown kind."""
    match description["kind"]:
        case "Box":
            shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
            low, high = (_bound_from_json(description[end], shape, dtype) for end in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        case "Discrete":
            dtype = np.dtype(description["dtype"])
            return spaces.Discrete(description["n"], start=description["start"], dtype=dtype.type)
        case "MultiDiscrete":
            dtype = np.dtype(description["dtype"])
            return spaces.MultiDiscrete(np.array(description["nvec"]), dtype.type, start=np.array(description["start"]))
        case "MultiBinary":
            return spaces.MultiBinary(description["n"])
        case "Text":
            return spaces.Text(
                description["max_length"], min_length=description["min_length"], charset=description["charset"]
            )
        case "Dict":
            return spaces.Dict({key: space_from_json(part) for key, part in description["spaces"].items()})
        case "Tuple":
            return spaces.Tuple([space_from_json(part) for part in description["spaces"]])
    raise UnsupportedSpace(f"{description['kind']!r} is no kind of space that JSON describes here")


def describe(space: dict[str, Any]) -> str:
    """Return a short form of a described space for messages: ``Box(3, 64, 64)``, ``Dict(image, mask)``."""
    match space["kind"]:
        case "Box":
            return f"Box({', '.join(map(str, space['shape']))}) of {space['dtype']}"
        case "Dict":
            return f"Dict({', '.join(f'{key}: {describe(part)}' for key, part in space['spaces'].items())})"
        case "Tuple":
            return f"Tuple({', '.join(describe(part) for part in space['spaces'])})"
        case "MultiDiscrete":
            return f"MultiDiscrete({space['nvec']})"
    return f"{space['kind']}({space.get('n', space.get('max_length'))})"


def _bound_to_json(bound: Any) -> Any:
    """One number where all are equal, else nested lists; infinities as strings, which JSON has no number for."""
    bound = np.asarray(bound)
    if bound.size and (bound == bound.flat[0]).all():
        return _number_to_json(bound.flat[0])
    return {"values": [_number_to_json(value) for value in bound.flat]}


def _number_to_json(value: Any) -> Any:
    value = value.item()
    return value if not isinstance(value, float) or np.isfinite(value) else repr(value)


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    values = bound["values"] if isinstance(bound, dict) else [bound] * int(np.prod(shape))
    return np.array([float(v) if isinstance(v, str) else v for v in values], dtype).reshape(shape)

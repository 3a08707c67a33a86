"""Runs one environment of the old gym API for Oneiros: ``python -I child.py FILE_DESCRIPTOR``.

The descriptor is a socket, its messages are those of ``envs/external/wire.py``. It hears ``make`` once (``id``,
``diamond`` or ``file``), then any number of ``reset`` (``seed``) and ``step`` (``action``, nested as the action space,
entries that are left out do nothing), and ``close``. It answers ``made`` with both spaces, ``observation`` with arrays
by their paths, reward and ``done``, or ``failed`` with a reason, after which it ends.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import traceback
from types import ModuleType
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def load(path: str) -> ModuleType:
    """Import a file by its path: this interpreter knows nothing of Oneiros' packages."""
    name = "oneiros_" + os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


wire = load(os.path.join(HERE, "..", "..", "external", "wire.py"))


def make(wanted: dict[str, Any]) -> Any:
    """The environment that ``make`` asks for; ``port`` is that of a game which is running already."""
    if "file" in wanted:
        return getattr(load(wanted["file"]), wanted["class"])()
    import gym

    import minerl.herobraine.envs

    name = wanted.get("id", "")
    if name.startswith("Fake"):
        return minerl.herobraine.envs.ENV_SPEC_MAPPINGS[name[len("Fake") :]].make(fake=True)
    env = (
        load(os.path.join(HERE, "diamond.py")).task(**wanted["diamond"]).make()
        if "diamond" in wanted
        else gym.make(name)
    )
    if wanted.get("port") is not None:
        from minerl.env.malmo import InstanceManager

        # The constructors of some tasks take no instances.
        env.unwrapped.instances = [InstanceManager.add_existing_instance(wanted["port"])]
    return env


class Space:
    """One space of the old API, known by the names of its classes: neither gym nor MineRL need be there."""

    def __init__(self, space: Any, path: str = "", packed: frozenset[str] = frozenset()) -> None:
        names = [base.__name__ for base in type(space).__mro__]
        known = ("Dict", "Enum", "Discrete", "Box")
        self.kind = next((kind for kind in known if kind in names), names[0])
        self.space, self.path = space, path
        self.parts: dict[str, Space] = {}
        self.packed = path in packed and self.kind == "Dict"
        if self.kind == "Dict":
            inner = space.spaces.items()
            self.parts = {key: Space(part, path + "/" + key if path else key, packed) for key, part in inner}
        elif self.kind == "Box":
            self.shape = tuple(space.shape) or (1,)
        elif self.kind == "Enum":
            self.values = [str(value) for value in space.values]
        elif self.kind not in known:
            raise ValueError(f"the entry {path!r} has a space that is not known here: {names[0]}")

    def describe(self) -> dict[str, Any]:
        """The description of ``envs/space_json.py``; Enum and packed Dict say more in ``values``."""
        if self.packed:
            return {"kind": "Packed", "values": list(self.parts)}
        if self.kind == "Dict":
            return {"kind": "Dict", "spaces": {key: part.describe() for key, part in self.parts.items()}}
        if self.kind == "Box":
            bounds = {end: _bound(np.asarray(getattr(self.space, end))) for end in ("low", "high")}
            return {"kind": "Box", "shape": list(self.shape), "dtype": str(np.dtype(self.space.dtype)), **bounds}
        discrete: dict[str, Any] = {"kind": "Discrete", "n": int(self.space.n), "start": 0, "dtype": "int64"}
        return {**discrete, "values": self.values} if self.kind == "Enum" else discrete

    def encode(self, value: Any, arrays: dict[str, Any]) -> None:
        """Put the leaves of ``value`` into ``arrays``."""
        if self.packed:
            arrays[self.path] = np.array([value[key] for key in self.parts])
        elif self.kind == "Dict":
            for key, part in self.parts.items():
                part.encode(value[key], arrays)
        elif self.kind == "Box":
            arrays[self.path] = np.asarray(value, self.space.dtype).reshape(self.shape)
        else:
            number = self.values.index(str(value)) if self.kind == "Enum" else int(value)
            arrays[self.path] = np.array(number, np.int64)

    def decode(self, value: Any) -> Any:
        """The action that ``value`` (out of JSON) means; ``None`` does nothing."""
        if self.kind == "Dict":
            given = value or {}
            unknown = [key for key in given if key not in self.parts]
            if unknown:
                raise ValueError(f"there is no action {unknown[0]!r}, but {', '.join(self.parts)}")
            return {key: part.decode(given.get(key)) for key, part in self.parts.items()}
        if value is None:
            return self.space.no_op() if hasattr(self.space, "no_op") else self._zero()
        if self.kind == "Enum":
            return value if isinstance(value, str) else self.values[value]
        if self.kind == "Box":
            return np.asarray(value, self.space.dtype).reshape(tuple(self.space.shape))
        return int(value)

    def _zero(self) -> Any:
        return np.zeros(self.space.shape, self.space.dtype) if self.kind == "Box" else 0


def _bound(bound: Any) -> Any:
    flat = [
        value if not isinstance(value, float) or np.isfinite(value) else repr(value) for value in bound.ravel().tolist()
    ]
    return flat[0] if flat and all(value == flat[0] for value in flat) else {"values": flat}


def serve(connection: socket.socket, env: Any, packed: frozenset[str]) -> None:
    """Answer until told to close."""
    observations, actions = Space(env.observation_space, "", packed), Space(env.action_space)
    wire.send(connection, "made", observation_space=observations.describe(), action_space=actions.describe())
    while True:
        kind, _, said = wire.receive(connection)
        if kind == "close":
            return
        arrays: dict[str, Any] = {}
        if kind == "reset":
            if said.get("seed") is not None:
                env.seed(said["seed"])
            observations.encode(env.reset(), arrays)
            wire.send(connection, "observation", arrays)
            continue
        observation, reward, done, info = env.step(actions.decode(said["action"]))
        if "error" in info:
            # MineRL answers with a random observation where it has lost its game.
            raise RuntimeError(str(info["error"]))
        observations.encode(observation, arrays)
        limited = bool(info.get("TimeLimit.truncated", False))
        wire.send(connection, "observation", arrays, reward=float(reward), done=bool(done), limited=limited)


def main() -> None:
    """Serve the one environment that is asked for."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        _, _, wanted = wire.receive(connection)
        env = make(wanted)
        try:
            serve(connection, env, frozenset(wanted.get("packed", ())))
        finally:
            env.close()
    except wire.WireError:
        return
    except Exception as error:
        traceback.print_exc()
        wire.send(connection, "failed", reason=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()

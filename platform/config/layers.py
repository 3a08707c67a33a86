"""Layering: defaults < preset < YAML file < ``--set`` < flags, each value remembering where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from oneiros.platform.config.algorithms import Algorithm, find_algorithm
from oneiros.platform.config.errors import ConfigError, explain, unknown
from oneiros.platform.config.layer import Layer
from oneiros.platform.config.presets import PresetChoice, choose_preset
from oneiros.platform.config.run_config import RunConfig
from pydantic import BaseModel, ValidationError

DEFAULT = "default"

_Path = tuple[str, ...]
"""Where a setting lies. Names inside a free mapping, such as MLflow tags, may hold dots themselves."""


@dataclass(frozen=True)
class Resolved:
    """A valid configuration, with the origin of every value by dotted key and the preset that was taken."""

    config: RunConfig
    algorithm: Algorithm
    origins: dict[str, str] = field(default_factory=dict)
    preset: PresetChoice | None = None

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every setting as (dotted key, value, origin), in the order of the configuration."""
        settings = self.config.to_dict()
        for key, value in _leaves(settings, RunConfig, self.algorithm.config_class):
            yield key, value, self.origins.get(key, DEFAULT)


def resolve(layers: Sequence[Layer]) -> Resolved:
    """Merge ``layers``, later ones over earlier ones, over the preset, over the defaults, and validate the result.

    A key that names no setting of the run but one of the algorithm's hyperparameters means that. Raises
    ``ConfigError`` for an unknown key, algorithm or preset, a wrong type, or a value out of range.
    """
    agent = _last(layers, "agent") or RunConfig.model_fields["agent"].default
    if not isinstance(agent, str):
        raise ConfigError(f"agent must be an algorithm's name, not {agent!r}.")
    algorithm = find_algorithm(agent)
    schema = _Schema(algorithm.config_class)
    flat = [(layer.origin, schema.flatten(layer)) for layer in layers]
    given = {path: value for _, values in flat for path, value in values.items()}

    env = given.get(("env",))
    if not isinstance(env, str) or not env:
        raise ConfigError("env must be given: an environment id such as CartPole-v1 (oneiros envs lists them).")
    name = given.get(("preset",))
    choice = choose_preset(algorithm.presets, env, None if name is None else str(name))
    if choice is not None:
        layer = Layer(f"preset {choice.name}", {**choice.preset.run, "hyper": choice.preset.hyper})
        flat.insert(0, (layer.origin, schema.flatten(layer)))
        if name is None:
            flat.append((choice.reason, {("preset",): choice.name}))

    merged: dict[_Path, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in flat:
        merged.update(values)
        origins.update({".".join(path): origin for path in values})
    return Resolved(_validate(merged, origins, algorithm), algorithm, origins, choice)


def setting_names(algorithm: Algorithm) -> Iterator[tuple[str, str]]:
    """Every setting's dotted key and description."""
    for key, description in _described(RunConfig):
        if key != "hyper":
            yield key, description
    for key, description in _described(algorithm.config_class):
        yield f"hyper.{key}", description


def _validate(merged: Mapping[_Path, Any], origins: Mapping[str, str], algorithm: Algorithm) -> RunConfig:
    nested = _nest(merged)
    hyper = algorithm.hyperparameters(nested.pop("hyper", {}), origins)
    try:
        return RunConfig(**nested, hyper=hyper.model_dump(mode="json"))
    except ValidationError as error:
        raise explain(error, origins=origins) from error


class _Schema:
    """The keys that exist: those of ``RunConfig``, with the algorithm's own under ``hyper``."""

    def __init__(self, hyper: type[BaseModel]) -> None:
        self.hyper = hyper
        own = [key for key, _ in _described(RunConfig) if key != "hyper"]
        self.keys = own + [f"hyper.{key}" for key, _ in _described(hyper)]

    def flatten(self, layer: Layer) -> dict[_Path, Any]:
        """The layer's settings by full path; raises ``ConfigError`` for a key that does not exist."""
        flat: dict[_Path, Any] = {}
        for key, value in layer.values.items():
            self._flatten(tuple(key.split(".")), value, layer.origin, flat)
        return flat

    def _flatten(self, path: _Path, value: Any, origin: str, flat: dict[_Path, Any]) -> None:
        if path[0] not in RunConfig.model_fields and path[0] in self.hyper.model_fields:
            path = ("hyper", *path)
        kind, depth = self._kind(path)
        key = ".".join(path)
        if kind is None:
            raise unknown("setting", key, self.keys, f" (in {origin})")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if not isinstance(value, Mapping):
                choices = ", ".join(key for key, _ in _described(kind))
                raise ConfigError(f"{key} must be a mapping of its settings ({choices}), not {value!r} (in {origin}).")
            for name, inner in value.items():
                self._flatten((*path, *str(name).split(".")), inner, origin, flat)
        elif kind is dict and depth < len(path):
            flat[(*path[:depth], ".".join(path[depth:]))] = value
        elif kind is dict:
            if value is None:
                # An optional mapping that a saved configuration has as null: nothing is set in it.
                return
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} must be a mapping, not {value!r} (in {origin}).")
            flat.update({(*path, str(name)): inner for name, inner in value.items()})
        else:
            flat[path] = value

    def _kind(self, path: _Path) -> tuple[Any, int]:
        """What lies at ``path`` (a model, ``dict``, another type, or None for nothing), and how deep it was found."""
        kind: Any = RunConfig
        for depth, name in enumerate(path):
            if kind is dict:
                return dict, depth
            if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or name not in kind.model_fields:
                return None, depth
            kind = self.hyper if kind is RunConfig and name == "hyper" else _plain(kind.model_fields[name].annotation)
        return kind, len(path)


def _plain(annotation: Any) -> Any:
    """The model or ``dict`` inside an annotation such as ``Model | None`` or ``dict[str, Any]``; else as it is."""
    for candidate in (annotation, *get_args(annotation)):
        origin = get_origin(candidate) or candidate
        if origin is dict or (isinstance(origin, type) and issubclass(origin, BaseModel)):
            return origin
    return annotation


def _described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        kind = _plain(info.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _described(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, info.description or ""


def _leaves(values: Mapping[str, Any], model: type[BaseModel], hyper: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a dumped configuration, opened exactly as far as ``_Schema.flatten`` opens them."""
    for name, value in values.items():
        info = model.model_fields.get(name)
        kind = hyper if model is RunConfig and name == "hyper" else _plain(info.annotation) if info else None
        if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, Mapping):
            for key, inner in _leaves(value, kind, hyper):
                yield f"{name}.{key}", inner
        elif kind is dict and isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield f"{name}.{key}", inner
        else:
            yield name, value


def _nest(flat: Mapping[_Path, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*parents, last), value in flat.items():
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


def _last(layers: Sequence[Layer], key: str) -> Any:
    values = [layer.values[key] for layer in layers if key in layer.values]
    return values[-1] if values else None

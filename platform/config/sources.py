"""Where settings are read from: YAML text and ``key=value`` words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from oneiros.platform.config.errors import ConfigError
from oneiros.platform.config.layer import Layer


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-4`` as text and ``off`` as a boolean; who writes them means a number and a word."""


BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOL or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def parse_mapping(text: str, name: str) -> dict[str, Any]:
    """Parse YAML that must be a mapping with text keys; raises ``ConfigError`` with the line that is wrong."""
    try:
        values = _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}{where} is not YAML: {getattr(error, 'problem', error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{name} must be a mapping of settings, such as 'env_steps: 100000'.")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file; raises ``ConfigError`` when it is missing or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"configuration file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}.") from error
    return parse_mapping(text, str(path))


def yaml_layer(path: Path) -> Layer:
    """A file's settings as a layer."""
    return Layer(str(path), read_yaml(path))


def overrides_layer(words: Iterable[str], flag: str = "--set", example: str = "train_ratio=64") -> Layer:
    """``key=value`` words as a layer: keys may be dotted, values are YAML, the last of equal keys counts.

    Raises ``ConfigError`` naming ``flag`` and an ``example`` for a word that is none.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"{flag} takes key=value, such as {example}, not {word!r}.")
        try:
            values[key] = _load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag} {word}: the value is not YAML ({getattr(error, 'problem', error)}).") from error
    return Layer(flag, values)

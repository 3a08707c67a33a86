"""Presets: settings that belong together, in a YAML file beside their algorithm, chosen by name or by environment.

::

    two_cores:                    # the name
      description: Any environment, on two processor cores.
      match: ["CartPole-*"]       # patterns of environment ids that choose it
      run: {train_ratio: 64}      # keys of RunConfig
      hyper: {size: 1m}           # keys of the algorithm's Config
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources.abc import Traversable
from typing import Any

from oneiros.platform.config.errors import ConfigError, explain, unknown
from oneiros.platform.config.sources import parse_mapping
from pydantic import BaseModel, ConfigDict, ValidationError

DEFAULT_WITH_GPU = "one_gpu"
DEFAULT_WITHOUT_GPU = "two_cores"


class Preset(BaseModel):
    """One preset of an algorithm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str
    match: tuple[str, ...] = ()
    run: dict[str, Any] = {}
    hyper: dict[str, Any] = {}


@dataclass(frozen=True)
class PresetChoice:
    """A preset and why it was taken."""

    name: str
    preset: Preset
    reason: str


def load_presets(source: Traversable) -> dict[str, Preset]:
    """Read a preset file; raises ``ConfigError`` naming the file and the preset that is wrong."""
    entries = parse_mapping(source.read_text(encoding="utf-8"), source.name)
    presets = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ConfigError(f"preset {name!r} in {source.name} must be a mapping, not {entry!r}.")
        try:
            presets[name] = Preset(**entry)
        except ValidationError as error:
            raise explain(error, prefix=name) from error
    return presets


def choose_preset(presets: Mapping[str, Preset], env: str, name: str | None = None) -> PresetChoice | None:
    """The preset called ``name``; else the one whose pattern fits ``env`` most specifically; else the machine's.

    ``None`` when nothing was named and no preset applies. Raises ``ConfigError`` for an unknown name.
    """
    if name is not None:
        if name not in presets:
            raise unknown("preset", name, presets)
        return PresetChoice(name, presets[name], "asked for")
    fits = [
        (sum(letter not in "*?" for letter in pattern), preset_name, pattern)
        for preset_name, preset in presets.items()
        for pattern in preset.match
        if fnmatchcase(env, pattern)
    ]
    if fits:
        _, chosen, pattern = max(fits, key=lambda fit: fit[0])
        return PresetChoice(chosen, presets[chosen], f"{env} matches {pattern}")
    return _default(presets, env)


def _default(presets: Mapping[str, Preset], env: str) -> PresetChoice | None:
    import torch

    gpu = torch.cuda.is_available()
    name = DEFAULT_WITH_GPU if gpu else DEFAULT_WITHOUT_GPU
    if name not in presets:
        return None
    found = f"the GPU {torch.cuda.get_device_name(0)}" if gpu else "no GPU"
    return PresetChoice(name, presets[name], f"no preset names {env}, and this machine has {found}")

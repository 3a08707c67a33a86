"""The configuration of a run: what can be set, where each value came from, and what is wrong with it."""

from oneiros.platform.config.algorithms import Algorithm, find_algorithm, list_algorithms
from oneiros.platform.config.errors import ConfigError
from oneiros.platform.config.layer import Layer
from oneiros.platform.config.layers import Resolved, resolve, setting_names
from oneiros.platform.config.presets import Preset, PresetChoice
from oneiros.platform.config.run_config import (
    CheckpointConfig,
    EvaluationConfig,
    ReplayConfig,
    RunConfig,
    TrackingConfig,
)
from oneiros.platform.config.sources import overrides_layer, read_yaml, yaml_layer

__all__ = [
    "Algorithm",
    "CheckpointConfig",
    "ConfigError",
    "EvaluationConfig",
    "Layer",
    "Preset",
    "PresetChoice",
    "ReplayConfig",
    "Resolved",
    "RunConfig",
    "TrackingConfig",
    "find_algorithm",
    "list_algorithms",
    "overrides_layer",
    "read_yaml",
    "resolve",
    "setting_names",
    "yaml_layer",
]

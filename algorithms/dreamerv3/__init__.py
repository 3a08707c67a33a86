"""DreamerV3: mastering diverse control tasks through world models (Nature 2025)."""

from oneiros.algorithms.dreamerv3.agent import DreamerV3
from oneiros.algorithms.dreamerv3.config import Hyperparameters

__all__ = ["DreamerV3", "Hyperparameters"]

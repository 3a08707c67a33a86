"""RLlib around the training core: configs, algorithms, env runners and learners."""

from oneiros.platform.engine.algorithm import DreamerV3, WorldModelAlgorithm
from oneiros.platform.engine.config import DreamerV3Config, WorldModelConfig

__all__ = ["DreamerV3", "DreamerV3Config", "WorldModelAlgorithm", "WorldModelConfig"]

"""Agents that model the world, each other, and what the other believes."""

from oneiros.algorithms.belief.agent import Belief
from oneiros.algorithms.belief.config import Hyperparameters

__all__ = ["Belief", "Hyperparameters"]

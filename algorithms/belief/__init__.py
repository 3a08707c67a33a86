"""Agents that model the world, each other, and what the other believes."""

from oneiros.algorithms.belief.agent import Belief
from oneiros.algorithms.belief.config import Hyperparameters
from oneiros.algorithms.belief.seat import Seat

__all__ = ["Belief", "Hyperparameters", "Seat"]

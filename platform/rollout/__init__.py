"""Collecting experience and evaluating policies; nothing here knows of Ray."""

from oneiros.platform.rollout.chunk import Chunk
from oneiros.platform.rollout.episode import Episode
from oneiros.platform.rollout.evaluate import Film, evaluate
from oneiros.platform.rollout.loop import PolicyFault, Rollout
from oneiros.platform.rollout.result import EvaluationResult

__all__ = ["Chunk", "Episode", "EvaluationResult", "Film", "PolicyFault", "Rollout", "evaluate"]

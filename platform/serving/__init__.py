"""Policies behind HTTP: sessions that keep the recurrent state, batches of concurrent requests, Ray Serve around it."""

from oneiros.platform.serving.refusals import BadRequest, Refused, TooManySessions, UnknownSession
from oneiros.platform.serving.service import ActRequest, PolicyService

__all__ = ["ActRequest", "BadRequest", "PolicyService", "Refused", "TooManySessions", "UnknownSession"]

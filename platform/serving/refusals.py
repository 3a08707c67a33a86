"""Why a request is not answered: one sentence each, with the HTTP status that goes with it."""

from __future__ import annotations


class Refused(ValueError):
    """A request that is not answered; the message says why and what would be."""

    status = 400


class BadRequest(Refused):
    """What was sent is not what the policy takes."""


class UnknownSession(Refused):
    """No session of that name: it never was, it was closed, or it expired."""

    status = 404


class TooLarge(Refused):
    """More was sent than any observation can take."""

    status = 413


class TooManySessions(Refused):
    """All sessions are taken."""

    status = 503

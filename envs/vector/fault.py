"""What can go wrong inside an environment while it runs."""

from __future__ import annotations

from typing import Literal

Kind = Literal["raised", "nan", "shape", "dtype", "range", "structure", "reward", "hang", "died", "lost"]
"""``raised``: it raised. ``nan``: a number is not finite. ``shape``, ``dtype``, ``range``, ``structure``: the
observation is not of the declared space. ``reward``: it is not a number. ``hang``: no answer in time. ``died``: its
process ended. ``lost``: it says itself that it lost the episode (``EPISODE_FAULT``)."""


class EnvironmentFault(RuntimeError):
    """A fault of an environment; the episode it happened in is lost from that step on, the run is not."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind: Kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class EnvironmentBroken(RuntimeError):
    """An environment that cannot be brought back: it faulted over and over without one good step in between."""

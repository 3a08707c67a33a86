"""One source of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """Settings from one place. Keys may be dotted, values may be nested mappings: both mean the same."""

    origin: str
    values: Mapping[str, Any]

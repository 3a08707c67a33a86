"""Skips what needs the engine where it is not installed."""

from __future__ import annotations

import pytest
from oneiros.envs.luanti.installation import REQUIREMENT


@pytest.fixture(scope="session")
def engine() -> None:
    """Luanti, Minetest Game, Xvfb and a compiler."""
    missing = REQUIREMENT.missing()
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: {REQUIREMENT.install}")

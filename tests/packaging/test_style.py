"""ruff and mypy, as tests: one run of pytest says everything, and a misspelt annotation hides no failing test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(*command: str) -> None:
    """Run at the root; what the tool says is the failure's message."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.fail(f"{' '.join(command)}\n{ran.stdout}{ran.stderr}", pytrace=False)


def test_ruff() -> None:
    check(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    check("make", "typing")
    check(sys.executable, "-m", "mypy", "-p", "oneiros")

"""``constraints.txt`` pins everything that CI installs, for every machine alike."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][A-Za-z0-9.]*)(?: ; python_version .*)?")


def lines() -> list[str]:
    """The pins as written, comments left out."""
    text = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in text if line and not line.startswith("#")]


def pins() -> dict[str, str]:
    """Canonical name to version."""
    matches = [match for line in lines() if (match := PIN.fullmatch(line))]
    return {str(canonicalize_name(match["name"])): match["version"] for match in matches}


def project() -> dict[str, Any]:
    """The ``[project]`` table."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def required(name: str, extra: str) -> list[str]:
    """What a distribution says it requires; nothing for one that is not installed (its own name tells then)."""
    if name == "oneiros":
        extras: dict[str, list[str]] = {"": project()["dependencies"], **project()["optional-dependencies"]}
        return extras[extra]
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def wanted() -> dict[str, list[Requirement]]:
    """What ``oneiros[test]`` needs on this machine, direct or not: canonical name to the requirements on it."""
    found: dict[str, list[Requirement]] = {}
    expanded: set[tuple[str, str]] = set()

    def follow(requirement: Requirement, extra: str) -> None:
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            return
        name = str(canonicalize_name(requirement.name))
        if name != "oneiros":
            found.setdefault(name, []).append(requirement)
        for inner in ("", *requirement.extras):
            if (name, inner) in expanded:
                continue
            expanded.add((name, inner))
            for text in required(name, inner):
                follow(Requirement(text), inner)

    follow(Requirement("oneiros[test]"), "")
    return found


def test_every_line_is_one_exact_pin() -> None:
    """No paths, no addresses, no ``+cpu``: the same pin must hold for every build of a version."""
    assert [line for line in lines() if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(lines())


def test_everything_that_ci_installs_is_pinned() -> None:
    """After a change to the dependencies, ``make constraints`` makes this pass."""
    assert sorted(set(wanted()) - set(pins())) == []


def test_the_pins_are_what_pyproject_asks_for() -> None:
    unmet = [
        f"{requirement} is pinned to {pins()[name]}"
        for name, requirements in wanted().items()
        for requirement in requirements
        if name in pins() and not requirement.specifier.contains(pins()[name], prereleases=True)
    ]
    assert unmet == []


def test_torch_brings_no_cuda_of_its_own() -> None:
    """Which build of PyTorch is installed is the machine's choice; pinned CUDA packages would make it for everybody."""
    assert "torch" in pins()
    assert [name for name in pins() if name.startswith(("nvidia-", "cuda-", "triton"))] == []

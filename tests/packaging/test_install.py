"""A wheel and an editable install, each in a scratch environment, used from a folder that is not the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "envs", "platform")

# Imports every module that it is told, and loads every entry point; prints where each module came from.
PROBE = """
import importlib, importlib.metadata, json, sys
import platform as pythons_platform
assert pythons_platform.python_version()
modules = {name: importlib.import_module(name).__file__ for name in json.load(sys.stdin)}
points = [point.name for point in importlib.metadata.distribution("oneiros").entry_points if point.load()]
json.dump({"modules": modules, "points": points}, sys.stdout)
"""


def run(*command: str | Path, cwd: Path, stdin: str = "") -> str:
    """What ``command`` prints; an error that shows what it said otherwise."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def project() -> dict[str, Any]:
    """The ``[project]`` table."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def entry_points() -> list[str]:
    """Every name that ``pyproject.toml`` declares, sorted."""
    groups = [project()["scripts"], *project()["entry-points"].values()]
    return sorted(name for group in groups for name in group)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files and nothing else: what lies in ``build/`` here must not get into a wheel."""
    copy = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def contents(source: Path) -> list[str]:
    """Every file of the three rooms but their READMEs, as its path in the repository."""
    files = (path for room in ROOMS for path in (source / room).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(source)) for path in files if path.name != "README.md")


@pytest.fixture(scope="module")
def modules(contents: list[str]) -> list[str]:
    """The import names of all of them."""
    paths = [Path(name) for name in contents if name.endswith(".py")]
    names = (path.parent if path.name == "__init__.py" else path.with_suffix("") for path in paths)
    return sorted("oneiros." + ".".join(name.parts) for name in names)


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Built as `python -m build` does: the sdist from the tree, the wheel from the sdist."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", ".", cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


def scratch_environment(directory: Path, *arguments: str | Path) -> Path:
    """A new environment's ``bin`` with oneiros installed by ``pip install ARGUMENTS``, and nothing downloaded.

    Everything else comes from this test's own site-packages, through a path file: such a folder's own path files are
    not read, so this environment's editable oneiros stays out.
    """
    venv.create(directory, symlinks=True)
    base = {"base": str(directory), "platbase": str(directory)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", base))
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", *arguments, cwd=directory)
    return python.parent


def check_installation(environment: Path, modules: list[str], home: Path, cwd: Path) -> None:
    """Every module imports from under ``home``, every entry point loads, and the command answers."""
    found = json.loads(run(environment / "python", "-c", PROBE, cwd=cwd, stdin=json.dumps(modules)))
    strays = {name: file for name, file in found["modules"].items() if not Path(file).is_relative_to(home)}
    assert strays == {}
    assert sorted(found["points"]) == entry_points()
    assert "train" in run(environment / "oneiros", "--help", cwd=cwd)


def test_wheel_holds_the_rooms_and_nothing_else(wheel: Path, contents: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(names) == [f"oneiros/{name}" for name in contents]
    assert [name for name in names if name.endswith("presets.yaml")]


def test_wheel_works(wheel: Path, modules: list[str], tmp_path: Path) -> None:
    environment = scratch_environment(tmp_path / "venv", wheel)
    check_installation(environment, modules, tmp_path / "venv", cwd=tmp_path)


def test_editable_install_works(source: Path, modules: list[str], tmp_path: Path) -> None:
    """Also at the root, where the working directory comes first on the path and ``platform/`` is a folder of it."""
    environment = scratch_environment(tmp_path / "venv", "--editable", source)
    check_installation(environment, modules, source, cwd=tmp_path)
    check_installation(environment, modules, source, cwd=source)


def test_the_package_in_the_readme_brings_its_environments(wheel: Path, tmp_path: Path) -> None:
    """Word for word: each fenced block that begins with a file's name becomes that file."""
    blocks = re.findall(r"```[a-z]+\n# ([a-z_]+\.[a-z]+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    package = tmp_path / "package"
    package.mkdir()
    for name, text in blocks:
        (package / name).write_text(text)
    assert {name for name, _ in blocks} == {"pyproject.toml", "corridors.py"}
    environment = scratch_environment(tmp_path / "venv", wheel, package)
    check = (environment / "oneiros", "envs", "check", "corridors/short", "--seconds", "0.5", "--json", "report.json")
    run(*check, "--option", "time_limit=100", cwd=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["episodes"] > 0


ALGORITHM = """
[project]
name = "linear-agent"
version = "1"

[project.entry-points."oneiros.algorithms"]
linear = "linear_agent:LinearAgent"

[tool.setuptools]
py-modules = ["linear_agent"]
"""


def test_an_algorithm_and_an_environment_of_others_train_by_name(wheel: Path, tmp_path: Path) -> None:
    """Each is a package of its own; the learner and an env runner in another process both find them."""
    blocks = re.findall(r"```[a-z]+\n# ([a-z_]+\.[a-z]+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    theirs, ours = tmp_path / "environment", tmp_path / "algorithm"
    theirs.mkdir(), ours.mkdir()
    for name, text in blocks:
        (theirs / name).write_text(text)
    (ours / "pyproject.toml").write_text(ALGORITHM)
    shutil.copy(ROOT / "tests/platform/fakes/linear_agent.py", ours)
    environment = scratch_environment(tmp_path / "venv", wheel, theirs, ours)
    assert "linear" in run(environment / "oneiros", "algorithms", cwd=tmp_path)
    train = (environment / "oneiros", "train", "corridors/short", "--agent", "linear", "--num-runners", "1")
    limits = ("--env-steps", "400", "--set", "env_options.time_limit=50", "--set", "learning_starts=50")
    run(*train, *limits, "--run-dir", "run", "--set", "train_ratio=8", "--set", "evaluation.episodes=2", cwd=tmp_path)
    result = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert result["episodes"] == 2 and result["env_steps"] >= 400

"""The layout's rules, which no compiler checks: rooms without ``__init__.py``, arrows one way, files one can read."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "envs", "platform")
LONGEST = 500

# What a folder may not import at all, and what it may import only where it is used (inside a function), so that it
# runs on a machine without it.
FORBIDDEN = {
    "algorithms": ("ray", "mlflow", "oneiros.platform", "oneiros.envs"),
    "envs": ("torch", "ray", "mlflow", "oneiros.platform", "oneiros.algorithms"),
}
FORBIDDEN_AT_MODULE_LEVEL = {
    "platform/replay": ("ray", "mlflow"),
    "platform/rollout": ("ray", "mlflow"),
    "platform/training": ("ray", "mlflow"),
}


def repository_files(*pathspecs: str) -> list[Path]:
    """Files of the repository, committed or about to be; what git ignores is none of ours."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *pathspecs]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def imports(tree: ast.Module, package: str, *, module_level: bool) -> list[tuple[int, str]]:
    """``(line, dotted name)`` of everything imported, relative imports resolved against ``package``.

    With ``module_level``, only what importing the module itself would import: bodies of functions and of
    ``if TYPE_CHECKING:`` are left out.
    """
    found: list[tuple[int, str]] = []

    def visit(node: ast.AST) -> None:
        children = list(ast.iter_child_nodes(node))
        match node:
            case ast.Import(names=names):
                found.extend((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                source = ".".join([*base, *([module] if module else [])])
                found.append((node.lineno, source))
                found.extend((node.lineno, f"{source}.{alias.name}") for alias in names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(function) in ("__import__", "importlib.import_module", "import_module"):
                    found.append((node.lineno, name))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if module_level:
                children = []
            case ast.If(test=test, orelse=orelse) if module_level and "TYPE_CHECKING" in ast.unparse(test):
                children = list(orelse)
        for child in children:
            visit(child)

    visit(tree)
    return found


def against_the_arrows(source: str, package: str, forbidden: tuple[str, ...], *, module_level: bool) -> list[str]:
    """The forbidden imports of ``source``, as ``line: name``."""
    return sorted(
        {
            f"{line}: {name}"
            for line, name in imports(ast.parse(source), package, module_level=module_level)
            if any(name == top or name.startswith(f"{top}.") for top in forbidden)
        }
    )


def violations(folder: str, forbidden: tuple[str, ...], *, module_level: bool) -> list[str]:
    """Every import in ``folder`` that goes against the arrows, as ``path:line: name``."""
    return [
        f"{path.relative_to(ROOT)}:{found}"
        for path in repository_files(f"{folder}/*.py")
        for found in against_the_arrows(
            path.read_text(),
            "oneiros." + ".".join(path.relative_to(ROOT).parent.parts),
            forbidden,
            module_level=module_level,
        )
    ]


def test_rooms_are_no_regular_packages() -> None:
    """A package called ``platform`` at the root would shadow Python's own, and torch would not import."""
    assert [room for room in ROOMS if (ROOT / room / "__init__.py").exists()] == []
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize("arguments", [["-c"], ["-m", "timeit", "-n1", "-r1"]], ids=["-c", "-m"])
def test_python_keeps_its_own_platform_at_the_root(arguments: list[str]) -> None:
    """Both ways put the working directory first on ``sys.path``."""
    code = "import platform; assert platform.python_version(), platform; assert platform.__spec__.origin"
    ran = subprocess.run([sys.executable, *arguments, code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_pytest_keeps_pythons_own_platform() -> None:
    """This very process, however it was started."""
    import platform

    assert platform.__file__ is not None and not Path(platform.__file__).is_relative_to(ROOT / "platform")
    assert platform.python_version()


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows(room: str) -> None:
    assert violations(room, FORBIDDEN[room], module_level=False) == []


@pytest.mark.parametrize("folder", FORBIDDEN_AT_MODULE_LEVEL)
def test_parts_that_import_without_ray(folder: str) -> None:
    assert violations(folder, FORBIDDEN_AT_MODULE_LEVEL[folder], module_level=True) == []


@pytest.mark.parametrize(
    ("source", "module_level", "found"),
    [
        ("import ray", True, ["1: ray"]),
        ("import rayleigh", True, []),
        ("from ray.rllib import Algorithm", True, ["1: ray.rllib", "1: ray.rllib.Algorithm"]),
        ("from oneiros import platform", True, ["1: oneiros.platform"]),
        ("from ..platform.cli import main", True, ["1: oneiros.platform.cli", "1: oneiros.platform.cli.main"]),
        ("def f():\n    import ray", False, ["2: ray"]),
        ("def f():\n    import ray", True, []),
        ("class C:\n    import ray", True, ["2: ray"]),
        ("try:\n    import ray\nexcept ImportError:\n    ray = None", True, ["2: ray"]),
        ("if TYPE_CHECKING:\n    import ray", True, []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import ray", True, ["4: ray"]),
        ("importlib.import_module('ray.tune')", True, ["1: ray.tune"]),
    ],
)
def test_the_arrows_test_sees(source: str, module_level: bool, found: list[str]) -> None:
    forbidden = ("ray", "oneiros.platform")
    assert against_the_arrows(source, "oneiros.algorithms", forbidden, module_level=module_level) == found


def test_every_library_that_is_imported_is_declared() -> None:
    """What some other dependency happens to bring today, it may drop tomorrow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {}
    for path in chain.from_iterable(repository_files(f"{room}/*.py") for room in ROOMS):
        package = "oneiros." + ".".join(path.relative_to(ROOT).parent.parts)
        for line, name in imports(ast.parse(path.read_text()), package, module_level=False):
            top = name.split(".")[0]
            owners = {canonicalize_name(owner) for owner in distributions.get(top, [])}
            if owners and not owners & declared:
                undeclared[top] = f"{path.relative_to(ROOT)}:{line}, of {' or '.join(sorted(owners))}"
    undeclared.pop("oneiros", None)
    assert undeclared == {}


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in repository_files("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"util.py", "utils.py", "helpers.py", "misc.py", "common.py"}
    assert [str(path.relative_to(ROOT)) for path in repository_files("*.py") if path.name in drawers] == []


def test_no_module_is_named_like_a_library_beside_it() -> None:
    """``envs/gymnasium.py`` would be taken for the library as soon as its folder is on ``sys.path``."""
    third_party = {
        "ale_py",
        "crafter",
        "dm_control",
        "gymnasium",
        "minigrid",
        "mlflow",
        "numpy",
        "ray",
        "shimmy",
        "torch",
    }
    tops = set(sys.stdlib_module_names) | third_party
    named = [path for room in ROOMS for path in repository_files(f"{room}/*.py") if path.parent == ROOT / room]
    assert [str(path.relative_to(ROOT)) for path in named if path.stem in tops] == []


def test_tests_are_no_packages() -> None:
    assert [str(path.relative_to(ROOT)) for path in repository_files("tests/*__init__.py")] == []


def test_nothing_names_a_machine() -> None:
    """No home folder, scratch folder or checkout of whoever wrote it."""
    private = re.compile(rb"/(?:work|home/(?!ray/)[a-z]+|Users/[A-Za-z]+|tmp/dev)/[A-Za-z.]|/root/\.")
    allowed = {Path(__file__).resolve()}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in repository_files()
        if path not in allowed
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if private.search(line)
    ]
    assert found == []

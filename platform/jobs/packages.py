"""Python packages that travel with a job: built as wheels here, unpacked, and put on the path of every process there.

Ray would install a wheel in ``py_modules`` with all its dependencies, PyTorch among them, on every host. Unpacked, it
is found just as well, entry points included, because its ``.dist-info`` folder travels along; what it depends on must
be on the cluster already.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlparse

from oneiros.platform.config import ConfigError

OWN_NAME = "oneiros"
_NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "mlruns", "mlartifacts", "node_modules", "venv"
)


def stage_plugin(path: Path, folder: Path) -> list[Path]:
    """Prepare a user's package and return the folders and files that must be on the path.

    ``path`` is a project (``pyproject.toml`` or ``setup.py``), whose entry points then work on the cluster, or a bare
    package (``__init__.py``), or a module (``.py``). Files are made under ``folder``. Raises ``ConfigError``.
    """
    path = path.resolve()
    if path.is_file() and path.suffix == ".py":
        return [path]
    if path.is_file() and path.suffix == ".whl":
        return _unpack(path, folder / path.stem)
    if not path.is_dir():
        raise ConfigError(f"plugin {path} does not exist: name a project's folder, a package, a .py file or a wheel.")
    if (path / "pyproject.toml").is_file() or (path / "setup.py").is_file():
        return _unpack(_build_wheel(path, folder), folder / "unpacked" / path.name)
    if (path / "__init__.py").is_file():
        return [path]
    raise ConfigError(f"plugin {path} is no Python package: it has no pyproject.toml, setup.py or __init__.py.")


def stage_own_package(folder: Path) -> list[Path]:
    """Prepare the Oneiros that runs here, for a cluster that has none or another; returns folders for the path.

    An editable install is built from its source, any other is copied from where it is. Raises ``ConfigError``.
    """
    # In a checkout there are two: what building left there, and the editable install that knows where it points.
    found = list(distributions(name=OWN_NAME))
    source = next(filter(None, map(_editable_source, found)), None)
    if source is not None:
        return _unpack(_build_wheel(source, folder), folder / "unpacked" / OWN_NAME)
    return _copy_installed(found[0], folder / "installed")


def _editable_source(installed: Distribution) -> Path | None:
    """The project's folder that an editable install points at (PEP 610)."""
    text = installed.read_text("direct_url.json")
    origin = json.loads(text) if text is not None else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(origin["url"]).path))


def _build_wheel(source: Path, folder: Path) -> Path:
    """Build from a copy: building writes into the source, and what it wrote there before would get into wheels."""
    copy = folder / "source" / source.name
    _copy_source(source, copy)
    out = folder / "wheels" / source.name
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out)]
    if _backend_is_here(copy):
        words.append("--no-build-isolation")
    built = subprocess.run([*words, str(copy)], capture_output=True, text=True, check=False)
    wheels = list(out.glob("*.whl"))
    if built.returncode or len(wheels) != 1:
        lines = [line for line in built.stderr.splitlines() if line.strip()]
        raise ConfigError(f"{source} cannot be built as a wheel: {lines[-1].strip() if lines else 'pip says nothing'}.")
    return wheels[0]


def _copy_source(source: Path, copy: Path) -> None:
    """What git tracks or would; everything but the usual leftovers where there is no git."""
    listed = subprocess.run(
        ["git", "-C", str(source), "ls-files", "--cached", "--others", "--exclude-standard", "-z", "."],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode or not listed.stdout:
        shutil.copytree(source, copy, ignore=_NOT_SOURCE)
        return
    for name in filter(None, listed.stdout.split("\0")):
        if (source / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)


def _backend_is_here(source: Path) -> bool:
    """Whether what builds ``source`` is installed, so that pip need not download it into an environment of its own."""
    file = source / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file.name} of {source.name} is not TOML: {error}.") from error
    system = project.get("build-system", {})
    backend = str(system.get("build-backend", "setuptools.build_meta")).partition(":")[0].partition(".")[0]
    return "backend-path" not in system and importlib.util.find_spec(backend) is not None


def _unpack(wheel: Path, folder: Path) -> list[Path]:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return _entries(folder)


def _copy_installed(installed: Distribution, folder: Path) -> list[Path]:
    for file in installed.files or ():
        # Scripts lie outside of the packages' folder.
        if ".." not in file.parts and file.suffix != ".pyc":
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(installed.locate_file(file)), target)
    if not folder.is_dir():
        raise ConfigError(f"the files of {OWN_NAME} {installed.version} are not recorded here: it cannot be shipped.")
    return _entries(folder)


def _entries(folder: Path) -> list[Path]:
    """What lies at the top: packages, modules, and the ``.dist-info`` folder by which entry points are found."""
    return sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".py")

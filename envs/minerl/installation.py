"""Where MineRL lives, what it needs from the machine, and how its virtual environment is made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oneiros.envs.contract import EnvironmentMistake, Requirement

VERSION = "0.4.4"
VARIABLE = "ONEIROS_MINERL"
SETUP = "oneiros setup minerl"
DOCTOR = "oneiros doctor minerl"
PYTHONS = ("3.11", "3.10", "3.9", "3.8")
GAME = Path("minerl") / "Malmo" / "Minecraft" / "build" / "libs" / "MalmoMod-0.37.0-fat.jar"
JAVA = "install a JDK 8 (apt-get install openjdk-8-jdk, or Temurin 8 from adoptium.net) and set JAVA_HOME to its folder"
STEPS: tuple[tuple[str, ...], ...] = (
    # gym 0.19 declares its requirements in a way that later tools refuse.
    ("pip<24.1", "setuptools<66", "wheel<0.38"),
    ("--no-build-isolation", "gym==0.19.0"),
    # MineRL uses names that NumPy dropped in 1.24.
    ("--no-build-isolation", "numpy<1.24", f"minerl=={VERSION}"),
)
"""What pip is asked for, in this order."""


class SetupFailed(RuntimeError):
    """A step of making MineRL's environment failed."""


class NoJava(EnvironmentMistake):
    """The game cannot be built with the Java that is here."""


class NoPython(EnvironmentMistake):
    """There is no Python here that MineRL works with."""


def home() -> Path:
    """The virtual environment: ``$ONEIROS_MINERL``, or a folder among the user's data."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(base) / "oneiros" / "minerl"


def python() -> Path:
    """The virtual environment's interpreter, whether it is there or not."""
    return home() / "bin" / "python"


def packages() -> Path | None:
    """Where its packages lie."""
    return next(iter(sorted((home() / "lib").glob("python3*/site-packages"))), None)


def installed_version(package: str) -> str | None:
    """The version of a package that is installed there."""
    folder = packages()
    if folder is None:
        return None
    found = [re.fullmatch(rf"{package}-(.+)\.dist-info", entry.name) for entry in folder.glob(f"{package}-*.dist-info")]
    return next((match[1] for match in found if match), None)


def game() -> Path | None:
    """Minecraft with MineRL's mod, where MineRL's installation has built it."""
    folder = packages()
    return folder / GAME if folder is not None and (folder / GAME).is_file() else None


def base_python(wanted: str | None = None) -> str:
    """An interpreter from 3.8 to 3.11 to make the virtual environment of; raises ``NoPython``."""
    own = "{}.{}".format(*sys.version_info[:2])
    candidates = [wanted] if wanted else [sys.executable if own == v else f"python{v}" for v in PYTHONS]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found and _version(found) in PYTHONS:
            return found
    if wanted:
        raise NoPython(f"{wanted} is no Python that MineRL {VERSION} works with: it needs one of {', '.join(PYTHONS)}")
    raise NoPython(
        f"MineRL {VERSION} needs Python {', '.join(PYTHONS)}, and none is here: install one, or give --python"
    )


def _version(executable: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def java() -> tuple[str | None, str]:
    """The Java compiler that would be used, and its version (``1.8.0_392``)."""
    from_home = os.path.join(os.environ["JAVA_HOME"], "bin", "javac") if os.environ.get("JAVA_HOME") else None
    found = shutil.which(from_home or "javac")
    if found is None:
        return None, ""
    try:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return found, ""
    match = re.search(r"javac (\S+)", said.stdout + said.stderr)
    return found, match[1] if match else ""


def require_java() -> None:
    """Raise ``NoJava`` unless the game can be built."""
    found, version = java()
    if found is None or not version.startswith("1.8"):
        here = f"{found} is {version}" if found else "there is no javac"
        raise NoJava(f"building MineRL's game needs JDK 8, and {here}: {JAVA}; --without-game leaves it out")


def make_home(base: str, *, with_game: bool) -> Iterator[str]:
    """Make the virtual environment anew; yields what is done next. Raises ``SetupFailed``.

    Without the game only MineRL's Python side is installed: its own setup leaves the game out where it believes that
    it is on a builder of documentation.
    """
    folder = home()
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise SetupFailed(
            f"{folder} is no virtual environment, so it is not replaced; set {VARIABLE} to another folder"
        )
    yield f"a virtual environment of {base} at {folder}"
    _run([base, "-m", "venv", "--clear", str(folder)], {})
    for packages_ in STEPS:
        yield f"pip install {' '.join(packages_)}"
        more = {} if with_game else {"READTHEDOCS": "1"}
        _run([str(python()), "-m", "pip", "install", *packages_], more)
    yield "importing MineRL"
    _run([str(python()), "-I", "-c", "import minerl.herobraine.envs"], {})


def _run(command: list[str], more: dict[str, str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, **more})
    except OSError as error:
        raise SetupFailed(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "rror" in line] or lines or [f"exit code {done.returncode}"]
        raise SetupFailed(f"'{' '.join(command)}' failed: {errors[-1]}; '{DOCTOR}' says what MineRL needs")


@dataclass(frozen=True)
class VenvRequirement(Requirement):
    """Another Python's packages, in place of modules of this one."""

    install: str = SETUP
    modules: tuple[str, ...] = field(default=())

    def missing(self) -> list[str]:
        """In words, what cannot be found."""
        if installed_version("minerl") is None:
            return [f"MineRL {VERSION} in an environment of its own"]
        if game() is None:
            return ["MineRL's game (Minecraft with its mod, built with Java 8)"]
        return []


REQUIREMENT = VenvRequirement()

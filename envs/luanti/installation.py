"""What the environment needs from the machine, and what it makes there: the shim, and the game's folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from oneiros.envs.contract import MissingDependency, Requirement

HERE = Path(__file__).parent
SHIM_SOURCES = tuple(HERE / "native" / name for name in ("shim.c", "culling.c", "chance.c"))
GAME_SOURCE = HERE / "game"
GAME = "oneiros"
APT = "apt-get install -y --no-install-recommends minetest minetest-data xvfb libgl1-mesa-dri gcc libc6-dev libx11-dev"
VERSION = "5.6.1"
"""The version of the engine that the shim was written for and tested with."""
GAMES_FOLDERS = (Path("/usr/share/games/minetest/games"), Path("/usr/share/minetest/games"))
PROGRAM_FOLDERS = "/usr/games:/usr/local/games"


def program(name: str) -> str | None:
    """The path of a program, on the path or where Debian puts games."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{PROGRAM_FOLDERS}")


def base_mod() -> Path | None:
    """The folder of Minetest Game's mod ``default``, which the world is made of."""
    for folder in GAMES_FOLDERS:
        mod = folder / "minetest_game" / "mods" / "default"
        if (mod / "init.lua").is_file():
            return mod
    return None


@dataclass(frozen=True)
class SystemRequirement(Requirement):
    """Programs and files of the operating system, in place of Python modules."""

    install: str = APT
    modules: tuple[str, ...] = field(default=())

    def missing(self) -> list[str]:
        """In words, what cannot be found."""
        missing = []
        if program("minetest") is None:
            missing.append("Luanti (the program minetest)")
        if base_mod() is None:
            missing.append("Minetest Game (minetest-data)")
        if program("Xvfb") is None:
            missing.append("Xvfb")
        if compiler() is None:
            missing.append("gcc")
        elif not Path("/usr/include/X11/Xlib.h").is_file():
            missing.append("Xlib's headers (libx11-dev)")
        return missing


REQUIREMENT = SystemRequirement()


def compiler() -> str | None:
    """The C compiler: ``$CC``, gcc, or cc."""
    return next((found for name in (os.environ.get("CC"), "gcc", "cc") if name and (found := program(name))), None)


def cache_folder() -> Path:
    """Where the shim and the game's folder are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "oneiros" / "luanti"


def shim() -> Path:
    """The compiled shim; compiles it where this version of it is not in the cache yet."""
    source = b"".join(path.read_bytes() for path in SHIM_SOURCES)
    target = cache_folder() / f"shim-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if target.is_file():
        return target
    gcc = compiler()
    if gcc is None:
        raise MissingDependency(f"luanti needs gcc, which {APT} installs")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may do this at once: each compiles for itself, and the last one to finish wins.
    handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(handle)
    flags = ["-O3", "-shared", "-fPIC", "-ftls-model=initial-exec", "-fno-strict-aliasing"]
    command = [gcc, *flags, "-o", partial, *map(str, SHIM_SOURCES), "-ldl", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        os.unlink(partial)
        said = (made.stderr.strip() or f"{gcc} ended with exit code {made.returncode}").splitlines()[0]
        raise MissingDependency(f"luanti's shim does not compile ({said}): {APT} installs what it needs")
    os.chmod(partial, 0o755)
    os.replace(partial, target)
    return target


def link_game(folder: Path) -> None:
    """Fill ``folder`` with the game: our mod, and Minetest Game's ``default`` as the system has it."""
    default = base_mod()
    if default is None:
        raise MissingDependency(f"luanti needs Minetest Game, which {APT} installs")
    game = folder / GAME
    (game / "mods").mkdir(parents=True)
    (game / "game.conf").symlink_to(GAME_SOURCE / "game.conf")
    (game / "mods" / "default").symlink_to(default)
    (game / "mods" / "oneiros").symlink_to(GAME_SOURCE / "mods" / "oneiros")

"""What this machine lacks to run MineRL, in the order in which it is to be installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from oneiros.envs.contract import EnvironmentMistake
from oneiros.envs.minerl import installation
from oneiros.platform.cli.examination import Item

DISK_BYTES = 6 * 10**9


def examine_minerl() -> list[Item]:
    """One item a step; what comes later needs what comes before."""
    return [*_python(), *_java(), *_display(), *_disk(), *_packages(), *_game(), *_data()]


def _python() -> Iterator[Item]:
    name = "1 Python 3.8 to 3.11"
    try:
        yield Item(name, "works", installation.base_python())
    except EnvironmentMistake:
        mend = "apt-get install python3.11 python3.11-venv, or conda create -n minerl python=3.10"
        yield Item(name, "missing", f"none is here; this one is {sys.version.split()[0]}", mend)


def _java() -> Iterator[Item]:
    name = "2 JDK 8"
    found, version = installation.java()
    if found is None:
        yield Item(name, "missing", "there is no javac", installation.JAVA)
    elif not version.startswith("1.8"):
        yield Item(name, "missing", f"{found} is {version or 'of no version that it says'}", installation.JAVA)
    else:
        yield Item(name, "works", f"{found}, {version}")


def _display() -> Iterator[Item]:
    name = "3 display"
    if display := os.environ.get("DISPLAY"):
        yield Item(name, "works", f"DISPLAY is {display}")
    elif found := shutil.which("xvfb-run"):
        yield Item(name, "works", f"none, but {found}: each game gets an X server of its own")
    else:
        mend = "apt-get install xvfb libgl1-mesa-dri libgl1"
        yield Item(name, "missing", "DISPLAY is not set, and there is no xvfb-run", mend)


def _disk() -> Iterator[Item]:
    folder = installation.home()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free >= DISK_BYTES
    mend = "" if enough else f"free some, or set {installation.VARIABLE} to a folder elsewhere"
    detail = f"{free / 1e9:.0f} GB free at {folder}; the game and what builds it take some {DISK_BYTES / 1e9:.0f}"
    yield Item("4 disk", "works" if enough else "missing", detail, mend)


def _packages() -> Iterator[Item]:
    home = installation.home()
    for number, package, wanted in ((5, "gym", "0.19.0"), (6, "minerl", installation.VERSION)):
        name, version = f"{number} {package} {wanted}", installation.installed_version(package)
        if version == wanted:
            yield Item(name, "works", f"in {home}")
        else:
            there = f"{home} has {version}" if version else f"not in {home}"
            yield Item(name, "missing", there, f"{installation.SETUP} (needs the internet)")


def _game() -> Iterator[Item]:
    name = "7 game"
    if found := installation.game():
        yield Item(name, "works", str(found))
        return
    detail = "Minecraft 1.11.2 with MineRL's mod is not built"
    mend = f"{installation.SETUP}, with steps 1 to 4 done, where gradle can reach the internet"
    yield Item(name, "missing", detail, mend)


def _data() -> Iterator[Item]:
    name, mend = "8 demonstrations", "set MINERL_DATA_ROOT to MineRL's data, and 'oneiros data import' an environment's"
    root = os.environ.get("MINERL_DATA_ROOT")
    if root and Path(root).is_dir():
        yield Item(name, "works", f"MINERL_DATA_ROOT is {root}")
    else:
        yield Item(name, "absent", "MINERL_DATA_ROOT is not set to a folder: only learning from people needs it", mend)

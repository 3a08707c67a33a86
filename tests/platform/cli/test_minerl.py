"""``oneiros setup minerl`` and ``oneiros doctor minerl``, with programs that only pretend: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from oneiros.envs.minerl import installation
from oneiros.platform.cli import minerl_examination
from oneiros.platform.cli.main import run

PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv")
    [ -n "$VENV_FAILS" ] && { echo "Error: ensurepip is not available" >&2; exit 1; }
    mkdir -p "$4/bin" "$4/lib/python3.10/site-packages" && touch "$4/pyvenv.cfg" && cp "$0" "$4/bin/python" ;;
"-m pip")
    echo "READTHEDOCS=$READTHEDOCS PYTHONPATH=$PYTHONPATH $*" >> "$PIP_LOG"
    case "$*" in *minerl*) mkdir "$ONEIROS_MINERL/lib/python3.10/site-packages/minerl-0.4.4.dist-info" ;; esac ;;
"-I -c") ;;
*) echo 3.10 ;;
esac
"""


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose Python 3.10 only pretends, with no Java and nothing set up."""
    for name in ("JAVA_HOME", "DISPLAY", "MINERL_DATA_ROOT", "VENV_FAILS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONEIROS_MINERL", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    monkeypatch.setenv("PYTHONPATH", "ours")
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "python3.10", PYTHON)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(installation, "PYTHONS", ("3.10",))
    return tmp_path


def javac(machine: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    (machine / "jdk" / "bin").mkdir(parents=True, exist_ok=True)
    program(machine / "jdk" / "bin" / "javac", f"#!/bin/sh\necho javac {version} >&2\n")
    monkeypatch.setenv("JAVA_HOME", str(machine / "jdk"))


def test_setup_makes_the_environment_step_by_step(machine: Path) -> None:
    assert run(["setup", "minerl", "--without-game", "--json", str(machine / "out.json")]) == 0
    asked = (machine / "pip.log").read_text().splitlines()
    assert len(asked) == 3
    assert "gym==0.19.0" in asked[1] and "minerl==0.4.4" in asked[2] and "numpy<1.24" in asked[2]
    # Ours must not leak into the other Python; and MineRL's own setup is told to leave the game out.
    assert all(line.startswith("READTHEDOCS=1 PYTHONPATH= ") for line in asked)
    said = json.loads((machine / "out.json").read_text())
    assert said == {"home": str(machine / "home"), "minerl": "0.4.4", "game": None}
    assert installation.REQUIREMENT.missing() == ["MineRL's game (Minecraft with its mod, built with Java 8)"]


def test_setup_builds_the_game_where_java_8_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    javac(machine, monkeypatch, "1.8.0_392")
    jar = machine / "home" / "lib" / "python3.10" / "site-packages" / installation.GAME
    jar.parent.mkdir(parents=True)
    (machine / "home" / "pyvenv.cfg").touch()
    jar.touch()
    assert run(["setup", "minerl"]) == 0
    assert all(line.startswith("READTHEDOCS= ") for line in (machine / "pip.log").read_text().splitlines())
    assert installation.REQUIREMENT.missing() == []


def test_what_setup_needs_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    javac(machine, monkeypatch, "17.0.15")
    assert run(["setup", "minerl"]) == 2
    assert "JDK 8" in (said := capsys.readouterr().err) and "17.0.15" in said and "--without-game" in said
    monkeypatch.setenv("VENV_FAILS", "1")
    assert run(["setup", "minerl", "--without-game"]) == 1
    assert "ensurepip is not available" in capsys.readouterr().err
    assert run(["setup", "minerl", "--without-game", "--python", "/bin/sh"]) == 2
    assert "3.10" in capsys.readouterr().err
    monkeypatch.setattr(installation, "PYTHONS", ("3.8",))
    assert run(["setup", "minerl", "--without-game"]) == 2
    assert "--python" in capsys.readouterr().err


def test_a_folder_that_is_something_else_stays(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "home").mkdir()
    (machine / "home" / "thesis.txt").write_text("years of work")
    assert run(["setup", "minerl", "--without-game"]) == 1
    assert "ONEIROS_MINERL" in capsys.readouterr().err
    assert (machine / "home" / "thesis.txt").read_text() == "years of work"


def states(path: Path) -> dict[str, Any]:
    return {item["name"].split(" ", 1)[1]: item for item in json.loads(path.read_text())}


def test_the_doctor_goes_through_it_step_by_step(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = machine / "out.json"
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr(minerl_examination, "DISK_BYTES", 1)
    monkeypatch.setenv("JAVA_HOME", str(machine / "nowhere"))
    assert run(["doctor", "minerl", "--json", str(out)]) == 1
    found = states(out)
    assert len(found) == 8
    assert found["Python 3.8 to 3.11"]["state"] == "works" and found["display"]["detail"] == "DISPLAY is :7"
    assert found["JDK 8"]["state"] == "missing" and "openjdk-8-jdk" in found["JDK 8"]["mend"]
    assert "oneiros setup minerl" in found["minerl 0.4.4"]["mend"]
    javac(machine, monkeypatch, "1.8.0_392")
    assert run(["setup", "minerl"]) == 0
    jar = machine / "home" / "lib" / "python3.10" / "site-packages" / installation.GAME
    (jar.parents[5] / "gym-0.19.0.dist-info").mkdir()
    jar.parent.mkdir(parents=True)
    jar.touch()
    monkeypatch.setenv("MINERL_DATA_ROOT", str(machine))
    assert run(["doctor", "minerl", "--json", str(out)]) == 0
    assert {item["state"] for item in states(out).values()} == {"works"}


def test_the_doctor_knows_no_other_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "health"]) == 2
    assert "minerl" in capsys.readouterr().err

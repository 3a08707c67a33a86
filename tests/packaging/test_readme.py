"""What the documents tell a newcomer to type exists: commands, their flags, settings, make targets, and links."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from oneiros.platform.cli.main import app
from oneiros.platform.cli.options import YAML_ENDINGS, Flags
from oneiros.platform.config import ConfigError
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("deploy", "envs", "tests/benchmarks")
DOCUMENTS = [ROOT / "README.md", *(file for room in ROOMS for file in sorted((ROOT / room).glob("*.md")))]


def code_in(document: Path) -> list[str]:
    """Everything set as code: the lines of fences, and each piece inside a text."""
    text = document.read_text()
    fences = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL)
    pieces = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return ["\n".join(fences).replace("\\\n", " "), *(" ".join(piece.split()) for piece in pieces)]


CODE = [line for document in DOCUMENTS for piece in code_in(document) for line in piece.splitlines()]
MANIFESTS = sorted(ROOT.glob("deploy/*/*.yaml"))
COMMANDS = {re.sub(r"\s+#.*", "", line) for line in CODE if line.startswith("oneiros ")}
COMMANDS |= {words for file in MANIFESTS for words in re.findall(r"(?:exec|#  ) (oneiros [^;'\n]+)", file.read_text())}
FRAGMENTS = {line for line in CODE if line.startswith("--")}
FRAGMENTS |= {f"--set {line}" for line in CODE if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+=\S+", line)}


def disarmed(command: Any) -> Any:
    """The command, which returns its parameters where it would run; so do those inside it."""
    command.callback = lambda **parameters: parameters
    for inner in getattr(command, "commands", {}).values():
        disarmed(inner)
    return command


def options_of(command: Any) -> set[str]:
    """The flags of the command and of those inside it."""
    own = {option for parameter in command.params for option in parameter.opts}
    return own.union(*(options_of(inner) for inner in getattr(command, "commands", {}).values()))


ONEIROS = disarmed(get_command(app))


def parse(words: list[str]) -> Any:
    """The parameters of the command that ``words`` name; raises what a user would be told."""
    return ONEIROS(words, prog_name="oneiros", standalone_mode=False)


def check_settings(parameters: dict[str, Any]) -> None:
    """Raises ``ConfigError`` if a training cannot be configured so."""
    flags = {field.name: parameters.get(field.name) for field in fields(Flags)}
    if flags["env"] is None or flags["env"].endswith(YAML_ENDINGS):
        flags["env"] = "CartPole-v1"
    Flags(**flags | {"overrides": tuple(parameters["set_"] or ())}).resolve()


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 20 and len(FRAGMENTS) > 10 and any("rayjob" in file.name for file in MANIFESTS)


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_commands_are_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    if "..." in words or all(re.fullmatch("[a-z]+", word) for word in words):
        # Named rather than spelt out: what it requires may be missing, but no flag may be unknown.
        parse([*(word for word in words if word != "..."), "--help"])
        return
    parameters = parse(words)
    if "set_" in parameters:
        check_settings(parameters)


@pytest.mark.parametrize("line", sorted(FRAGMENTS))
def test_flags_and_settings_exist(line: str) -> None:
    words = shlex.split(line)
    flags = {word for word in words if word.startswith("--")}
    assert flags <= options_of(ONEIROS)
    spelt_out = len(words) > len(flags) and not any(word.isupper() for word in words)
    if not spelt_out or not flags <= options_of(ONEIROS.commands["train"]):
        return
    mistakes = []
    for more in ([], ["--num-runners", "1"], ["--agent", "belief"]):
        try:
            return check_settings(parse(["train", "CartPole-v1", *more, *words]))
        except ConfigError as error:
            mistakes.append(str(error))
    pytest.fail("; ".join(mistakes))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^(?:\s*|.*&& )make ([a-z]+)", "\n".join(CODE), flags=re.MULTILINE))
    assert named
    assert named - targets == set()

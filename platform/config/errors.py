"""One sentence for each thing that can be wrong with a configuration."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

LONGEST_LIST = 15
"""Choices that are still worth listing in a message."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, what is wrong, and the choices."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``word``, also when only the last part of a dotted choice resembles it."""
    names = list(choices)
    if whole := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return whole[0]
    by_last = {name.rpartition(".")[2]: name for name in reversed(names)}
    last = difflib.get_close_matches(word.rpartition(".")[2], by_last, n=1, cutoff=0.6)
    return by_last[last[0]] if last else None


def unknown(kind: str, word: str, choices: Iterable[str], where: str = "") -> ConfigError:
    """``word`` names no ``kind``: suggest the nearest, or list the choices when nothing is near."""
    names = sorted(choices)
    guess = nearest(word, names)
    if guess:
        hint = f"did you mean {guess}?"
    elif len(names) > LONGEST_LIST:
        hint = "'oneiros config ENV' lists all there are."
    else:
        hint = f"choose from {', '.join(names)}." if names else "there is none."
    return ConfigError(f"{kind} {word!r}{where} is unknown: {hint}")


def explain(error: ValidationError, prefix: str = "", origins: Mapping[str, str] | None = None) -> ConfigError:
    """Turn pydantic's report into one sentence about the first problem, naming the other keys with problems."""
    problems = error.errors()
    first = problems[0]
    key = _dotted(first["loc"], prefix)
    if first["loc"]:
        sentence = f"{key} {_complaint(first)}"
        origin = _origin(key, origins or {})
        said = f"set by {origin}" if origin else ""
    else:
        sentence = _complaint(first)
        said = _set_by(sentence, prefix, origins or {})
    if said:
        sentence += f" ({said})"
    others = sorted({_dotted(problem["loc"], prefix) for problem in problems[1:]} - {key, ""})
    if others:
        sentence += f"; {', '.join(others)} {'is' if len(others) == 1 else 'are'} wrong too"
    return ConfigError(sentence + ".")


def _dotted(location: tuple[int | str, ...], prefix: str) -> str:
    return ".".join(part for part in (prefix, *map(str, location)) if part not in ("", "[key]"))


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    """Who set ``key``, or a part of it."""
    return next((origin for name, origin in origins.items() if name == key or name.startswith(f"{key}.")), None)


def _set_by(sentence: str, prefix: str, origins: Mapping[str, str]) -> str:
    """Who set the settings that a sentence about several of them names."""
    words = set(re.findall(r"\w+(?:\.\w+)*", sentence))
    named = {key: origin for key, origin in origins.items() if key.removeprefix(f"{prefix}.") in words}
    return ", ".join(f"{key} set by {origin}" for key, origin in named.items())


def _complaint(problem: Any) -> str:
    message: str = problem["msg"]
    if problem["type"] == "value_error":
        return message.removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "missing":
        return "must be given"
    if problem["type"] == "extra_forbidden":
        return "is not a setting"
    wanted = message.removeprefix("Input should be ").split(", unable to parse")[0]
    wanted = wanted.replace("a valid integer, got a number with a fractional part", "a whole number")
    wanted = wanted.replace("a valid integer", "a whole number").replace("a valid ", "a ")
    wanted = wanted.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    given = problem["input"]
    return f"must be {wanted}, not {given!r}"

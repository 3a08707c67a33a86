"""What the shell offers for a word that is being typed."""

from __future__ import annotations

from collections.abc import Callable

DEFAULT_AGENT = "dreamerv3"


def algorithms(incomplete: str) -> list[str]:
    """Installed algorithms."""
    from oneiros.platform.config import list_algorithms

    return [name for name in list_algorithms() if name.startswith(incomplete)]


def presets(incomplete: str) -> list[tuple[str, str]]:
    """Presets of all algorithms, with what they are for."""
    from oneiros.platform.config import list_algorithms

    return [
        (name, preset.description)
        for algorithm in list_algorithms().values()
        for name, preset in algorithm.presets.items()
        if name.startswith(incomplete)
    ]


def envs(incomplete: str) -> list[str]:
    """Environments that the installed suites list."""
    from oneiros.envs.registry import GYMNASIUM, suites

    names = [task if suite.name == GYMNASIUM else f"{suite.name}/{task}" for suite in suites() for task in suite.tasks]
    return [name for name in names if name.startswith(incomplete)]


def settings(incomplete: str) -> list[tuple[str, str]]:
    """Keys for ``--set``: those of a run, and of the default algorithm's ``hyper``."""
    from oneiros.platform.config import find_algorithm, setting_names

    return [
        (f"{key}=", description)
        for key, description in setting_names(find_algorithm(DEFAULT_AGENT))
        if key.startswith(incomplete)
    ]


def one_of(*choices: str) -> Callable[[str], list[str]]:
    """These words."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]

"""What an environment, and a suite of them, is to everything else in Oneiros.

An environment is a ``gymnasium.Env``, or a ``gymnasium.vector.VectorEnv`` with next-step autoreset. Beyond its spaces
it may offer:

- an observation entry ``action_mask``: bool or int8, one entry an action, true where the action is legal,
- ``info`` entries whose keys begin with ``log_``: numbers whose values at the end of an episode are reported with it,
- ``info["episode_fault"]`` at the end of a truncated episode that is not the policy's doing, such as a game that
  crashed: what happened, in words. The episode is learnt from, and counted as a fault instead of an episode,
- ``get_state()`` and ``set_state(state)`` (``Snapshot``): runs that are resumed then go on inside the same episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

import gymnasium

EPISODE_FAULT = "episode_fault"


class EnvironmentMistake(ValueError):
    """A user's mistake about an environment; the message is one sentence that names it and the valid choices."""


class UnknownEnvironment(EnvironmentMistake):
    """No suite has a task of this name."""


class BrokenSuite(EnvironmentMistake):
    """An installed package's suite cannot be loaded, or two packages provide one of the same name."""


class InvalidOption(EnvironmentMistake):
    """An environment was given an option that it does not take, or a value that the option cannot have."""


class MissingDependency(EnvironmentMistake):
    """The environment exists, but a package or a library that it needs is not installed; the message says what is."""


class UnsupportedSpace(EnvironmentMistake):
    """An observation or action space that no agent here can be given."""


@dataclass(frozen=True)
class Requirement:
    """What a suite needs beyond Oneiros itself."""

    install: str
    """The command that installs it, such as ``pip install 'oneiros[dmc]'``."""
    modules: tuple[str, ...]
    """Modules that are importable when it is there. They are looked for, not imported."""

    def missing(self) -> list[str]:
        """The modules that cannot be found."""
        return [module for module in self.modules if not _importable(module)]

    def check(self, who: str) -> None:
        """Raise ``MissingDependency`` on behalf of ``who`` unless everything is there."""
        missing = self.missing()
        if missing:
            raise MissingDependency(f"{who} needs {' and '.join(missing)}, which {self.install} installs")


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


NOTHING = Requirement(install="", modules=())
"""The requirement of a suite that needs only what Oneiros itself depends on."""


class Suite(Protocol):
    """Environments that are made by one piece of code and named ``suite/task``.

    A package adds one with an entry point in the group ``oneiros.envs`` that names an object like this, or a class
    that is called without arguments to make one. Importing the module must not import what ``requirement`` names.
    """

    name: str
    description: str
    requirement: Requirement

    def tasks(self) -> Sequence[str]:
        """The known task names, without the suite's; ``make`` may accept more (say so in the description)."""

    def make(self, task: str, **options: Any) -> gymnasium.Env[Any, Any]:
        """Build one environment; raises ``InvalidOption``, or ``UnknownEnvironment()`` without a message to have the
        registry name the nearest task."""


@runtime_checkable
class HandlesOptions(Protocol):
    """A suite that applies some of the generic options itself, because its own meaning of them differs."""

    handles: frozenset[str]
    """Names out of ``oneiros.envs.options.GENERIC`` that ``make`` receives instead of a wrapper."""


@runtime_checkable
class KnowsBounds(Protocol):
    """A suite whose environments can tell more than training is told: what perfect inference would know."""

    examination: Mapping[str, Any]
    """Options under which ``make`` has them do so, for a policy's beliefs to be measured by."""


@runtime_checkable
class StepsTogether(Protocol):
    """A suite whose environments step together in one call, in this process."""

    def make_vector(
        self, task: str, num_envs: int, seeds: Sequence[int] | None, **options: Any
    ) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Build ``num_envs`` copies with next-step autoreset, and these seeds for the first reset that is given none.

        ``reset`` takes ``options["reset_mask"]``, ``(N,)`` bool; infos are ``infos["each"]``, one an environment.
        ``options`` are all that the user gave. Raises as ``make`` does.
        """


@runtime_checkable
class ResolvesTasks(Protocol):
    """A suite whose task names may mean something in this process only, such as what a script registered."""

    def resolve(self, task: str) -> dict[str, Any]:
        """Options with which ``make`` builds ``task`` in any process; raises as ``make`` does."""


@runtime_checkable
class Snapshot(Protocol):
    """An environment whose state can be taken out and put back, so that a resumed run continues its episode."""

    def get_state(self) -> Mapping[str, Any]:
        """Everything that later steps depend on, as numbers, strings, arrays, and lists and dicts of these."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned, in this or another process."""


@dataclass(frozen=True)
class SuiteStatus:
    """One line of the table of suites."""

    name: str
    description: str
    tasks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Modules that are not installed; empty means that the suite works here."""
    install: str = ""
    """The command that installs what is missing."""
    error: str = ""
    """Why the suite could not be loaded at all."""
    source: str = ""
    """The distribution that provides it."""
    available: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "available", not self.missing and not self.error)

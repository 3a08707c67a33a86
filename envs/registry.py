"""Environments by name: ``suite/task`` from the suites that are installed, anything else from Gymnasium.

Suites come from entry points in the group ``oneiros.envs`` (Oneiros' own do too) and from ``register``. Only the suite
that a name needs is imported; one that cannot be imported is reported by ``suites`` and leaves the others alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from typing import Any, Literal

import numpy as np
from gymnasium.vector import VectorEnv
from oneiros.envs import options as generic
from oneiros.envs.contract import (
    BrokenSuite,
    HandlesOptions,
    InvalidOption,
    ResolvesTasks,
    StepsTogether,
    Suite,
    SuiteStatus,
    UnknownEnvironment,
)
from oneiros.envs.multiagent.joint import is_multiagent, joint
from oneiros.envs.options import AnyEnv
from oneiros.envs.vector.subprocesses import SubprocessVector
from oneiros.envs.vector.sync import SyncVector

GROUP = "oneiros.envs"
GYMNASIUM = "gym"
"""The suite that takes every id without a suite's name."""

Vectorization = Literal["sync", "async"]
AnyVector = VectorEnv[Any, Any, Any]

_registered: dict[str, Suite] = {}


def register(suite: Suite) -> None:
    """Add a suite for this process and the environment processes it starts; replaces one of the same name."""
    if not suite.name or "/" in suite.name:
        raise InvalidOption(f"a suite's name has at least one character and no slash, not {suite.name!r}")
    _registered[suite.name] = suite


def make(env_id: str, **options: Any) -> AnyEnv:
    """Build one environment.

    ``options`` are the suite's own for this task and the generic ones (``oneiros.envs.options.GENERIC``). Raises
    ``UnknownEnvironment``, ``InvalidOption`` or ``MissingDependency``, each with a message for the user.
    """
    suite, task = find(env_id)
    return build(suite, task, env_id, options)


def make_vector(
    env_id: str,
    num_envs: int,
    vectorization: Vectorization = "sync",
    seed: int | None = None,
    *,
    step_timeout: float | None = 60.0,
    reset_timeout: float | None = 600.0,
    **options: Any,
) -> AnyVector:
    """Build ``num_envs`` copies that step together, with next-step autoreset and surviving faults.

    ``sync`` steps them one after another in this process: right for anything faster than about a millisecond a step.
    Those of a suite that ``StepsTogether`` then step in one call; faults in them are not told apart.
    ``async`` gives each a process of its own, where one that takes longer than ``step_timeout`` seconds over a step,
    or ``reset_timeout`` over a reset, is ended and replaced. The copies' seeds are derived from ``seed``.
    """
    if num_envs < 1:
        raise InvalidOption(f"the number of environments is at least 1, not {num_envs}")
    suite, task = find(env_id)
    if isinstance(suite, ResolvesTasks):
        with _naming(env_id, suite):
            options |= suite.resolve(task)
    factory: Callable[[], AnyEnv] = partial(build, suite, task, env_id, options)
    seeds = None if seed is None else env_seeds(seed, num_envs)
    if vectorization == "sync":
        if isinstance(suite, StepsTogether):
            suite.requirement.check(f"the suite {suite.name!r}")
            with _naming(env_id, suite):
                return suite.make_vector(task, num_envs, seeds, **options)
        return SyncVector(factory, num_envs, name=env_id, seeds=seeds)
    if vectorization == "async":
        return SubprocessVector(
            factory, num_envs, name=env_id, seeds=seeds, step_timeout=step_timeout, reset_timeout=reset_timeout
        )
    raise InvalidOption(f"environments are vectorised sync or async, not {vectorization!r}")


def env_seeds(seed: int, num_envs: int) -> list[int]:
    """One seed an environment, such that different ``seed`` share none, as ``seed + i`` would."""
    return [int(state) for state in np.random.SeedSequence(seed).generate_state(num_envs, np.uint32)]


def build(suite: Suite, task: str, env_id: str, options: dict[str, Any]) -> AnyEnv:
    """Build ``task`` of ``suite``; what ``make`` does after it has found the suite."""
    suite.requirement.check(f"the suite {suite.name!r}")
    handles = suite.handles if isinstance(suite, HandlesOptions) else frozenset()
    wrapped = {key: value for key, value in options.items() if key in generic.GENERIC and key not in handles}
    own = {key: value for key, value in options.items() if key not in wrapped}
    with _naming(env_id, suite):
        env = suite.make(task, **own)
    if is_multiagent(env):
        env = joint(env)
    return generic.apply(env, env_id, wrapped)


@contextmanager
def _naming(env_id: str, suite: Suite) -> Iterator[None]:
    """Say which environment is nearest where a suite only says that it has none of that name."""
    try:
        yield
    except UnknownEnvironment as error:
        if error.args:
            raise
        raise UnknownEnvironment(_unknown(env_id, suite)) from None


def find(env_id: str) -> tuple[Suite, str]:
    """The suite that makes ``env_id``, and the task's name in it."""
    name, slash, task = env_id.partition("/")
    known = _known()
    if slash and name in known:
        return _load(name), task
    if env_id in known:
        raise UnknownEnvironment(f"{env_id!r} is a suite, not an environment: {_some(_names(_load(env_id)))}")
    return _load(GYMNASIUM), env_id


def suites() -> list[SuiteStatus]:
    """Every suite that is registered or installed, whether it works here, and what it lacks."""
    return [_status(name) for name in sorted(_known())]


def _status(name: str) -> SuiteStatus:
    points = _entry_points().get(name, [])
    source = "" if name in _registered or not points else _distribution(points[0])
    try:
        suite = _load(name)
        missing = suite.requirement.missing()
        return SuiteStatus(
            name,
            suite.description,
            tasks=tuple(suite.tasks()),
            missing=tuple(missing),
            install=suite.requirement.install if missing else "",
            source=source,
        )
    except Exception as error:
        return SuiteStatus(name, "", error=f"{type(error).__name__}: {error}", source=source)


def _known() -> set[str]:
    return set(_registered) | set(_entry_points())


def _load(name: str) -> Suite:
    if name in _registered:
        return _registered[name]
    points = _entry_points()[name]
    if len({point.value for point in points}) > 1:
        owners = " and ".join(sorted(_distribution(point) for point in points))
        raise BrokenSuite(f"the suite {name!r} is provided by both {owners}: uninstall one of them")
    try:
        suite = points[0].load()
        suite = suite() if isinstance(suite, type) else suite
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BrokenSuite(f"the suite {name!r} of {_distribution(points[0])} cannot be loaded: {reason}") from error
    lacking = [part for part in ("name", "description", "requirement", "tasks", "make") if not hasattr(suite, part)]
    if lacking:
        raise BrokenSuite(f"the suite {name!r} of {_distribution(points[0])} lacks {', '.join(lacking)}")
    loaded: Suite = suite
    return loaded


def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    points: dict[str, list[metadata.EntryPoint]] = {}
    for point in metadata.entry_points(group=GROUP):
        points.setdefault(point.name, []).append(point)
    return points


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"


def _names(suite: Suite) -> list[str]:
    return [task if suite.name == GYMNASIUM else f"{suite.name}/{task}" for task in suite.tasks()]


def _unknown(env_id: str, suite: Suite) -> str:
    names = _names(suite)
    others = [name for name in sorted(_known()) if name != suite.name] if suite.name == GYMNASIUM else []
    for name in others:
        try:
            names += _names(_load(name))
        except Exception:  # another package's fault must not hide this message; suites() reports it
            continue
    close = difflib.get_close_matches(env_id, names, n=1)
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif suite.name == GYMNASIUM:
        hint = f"there are the suites {', '.join(sorted(_known()))}, whose environments 'oneiros envs --tasks' lists"
    else:
        hint = f"there are {_some(names)}"
    return f"unknown environment {env_id!r}: {hint}"


def _some(names: list[str], most: int = 6) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""Does an environment keep its contract? Runs it with random actions and says what its author can act on."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import gymnasium
import numpy as np
import psutil
from gymnasium import spaces
from oneiros.envs.contract import EnvironmentMistake
from oneiros.envs.spaces import flatten_action_space, flatten_observation_space

AnyEnv = gymnasium.Env[Any, Any]
MEGABYTE = 1e6
REPEATED_STEPS = 100
"""Steps that two runs from the same seed are compared over."""
LEAK_MEGABYTES = 50.0
"""Growth a million steps from which on memory counts as leaking: a run of 10 million steps then costs 500 MB."""
LEAST_GROWTH = 4.0
"""Megabytes under which growth is not told from an allocator that warms up."""


@dataclass(frozen=True)
class Finding:
    """One thing to act on."""

    breaks: bool
    """Whether training would go wrong, rather than only less well."""
    text: str


@dataclass
class Report:
    """What running an environment showed."""

    env: str
    steps: int = 0
    episodes: int = 0
    steps_per_s: float = 0.0
    reset_s: float = 0.0
    longest_episode: int = 0
    megabytes_per_million_steps: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._kinds: set[str] = set()

    @property
    def broken(self) -> bool:
        """Whether anything breaks the contract."""
        return any(finding.breaks for finding in self.findings)

    def add(self, text: str, breaks: bool = True, kind: str | None = None) -> None:
        """Note a finding, once of its ``kind``; by default its text is its kind."""
        if (kind or text) not in self._kinds:
            self._kinds.add(kind or text)
            self.findings.append(Finding(breaks, text))

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "broken": self.broken}


def check_environment(name: str, make: Callable[[], AnyEnv], *, seconds: float = 10.0, seed: int = 0) -> Report:
    """Make the environment, run it for about ``seconds``, and report.

    Raises what ``make`` raises, and ``UnsupportedSpace``; what goes wrong later is a finding.
    """
    report = Report(name)
    children = set(psutil.Process().children(recursive=True))
    env = make()
    try:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            flatten_observation_space(env.observation_space)
            flatten_action_space(env.action_space)
            _Runner(env, report, seed).run(seconds)
            _check_repeats(env, report, seed)
        for warning in raised:
            report.add(f"warns: {str(warning.message).splitlines()[0]}", breaks=False)
    except EnvironmentMistake:
        raise
    except Exception as error:
        report.add(f"raises {type(error).__name__} after {report.steps} steps: {error}")
    finally:
        _close(env, report, children)
    return report


class _Runner:
    """Steps an environment at random and looks at everything it returns."""

    def __init__(self, env: AnyEnv, report: Report, seed: int) -> None:
        self.env = env
        self.report = report
        self.seed = seed
        self._resets: list[float] = []
        self._lengths: list[int] = []

    def run(self, seconds: float) -> None:
        self.env.action_space.seed(self.seed)
        process = psutil.Process()
        memory: list[tuple[int, float]] = []
        length, in_steps = 0, 0.0
        until = time.perf_counter() + seconds
        observation = self._reset(self.seed)
        while True:
            action = sample_action(self.env.action_space, observation)
            before = _copy(observation)
            began = time.perf_counter()
            next_observation, reward, terminated, truncated, info = self._step(action)
            in_steps += time.perf_counter() - began
            self.report.steps += 1
            length += 1
            self._look_at_step(observation, before, next_observation, reward, terminated, truncated, info)
            observation = next_observation
            if terminated or truncated:
                self._lengths.append(length)
                length = 0
                observation = self._reset(None)
            if self.report.steps % 100 == 0 or not memory:
                memory.append((self.report.steps, process.memory_info().rss / MEGABYTE))
            if time.perf_counter() >= until:
                break
        self.report.episodes = len(self._lengths)
        self.report.longest_episode = max([*self._lengths, length])
        self.report.steps_per_s = self.report.steps / max(in_steps, 1e-9)
        self.report.reset_s = float(np.mean(self._resets))
        self._judge_memory(memory)
        if not self._lengths:
            self.report.add(
                f"no episode ended within {self.report.steps:,} steps: give it a time_limit, "
                "or training hears of no return",
                breaks=False,
            )

    def _reset(self, seed: int | None) -> Any:
        began = time.perf_counter()
        result = self.env.reset(seed=seed)
        self._resets.append(time.perf_counter() - began)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise TypeError(f"reset() must return (observation, info), not {_kind(result)}")
        self._look_at_observation(result[0], "reset()")
        return result[0]

    def _step(self, action: Any) -> Any:
        result = self.env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            raise TypeError(
                f"step() must return (observation, reward, terminated, truncated, info), not {_kind(result)}"
            )
        return result

    def _look_at_step(
        self, last: Any, before: Any, observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any
    ) -> None:
        report = self.report
        self._look_at_observation(observation, "step()")
        if not isinstance(reward, int | float | np.number):
            report.add(f"step() returns a reward of type {type(reward).__name__}: it must be a number")
        elif not np.isfinite(float(reward)):
            report.add(f"step() returns the reward {reward}: it must be finite", kind="infinite reward")
        for flag, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool | np.bool_):
                report.add(f"step() returns {flag} of type {type(value).__name__}: it must be a bool")
        if not isinstance(info, dict):
            report.add(f"step() returns info of type {type(info).__name__}: it must be a dict")
        if not _equal(last, before):
            report.add(
                "step() writes into the observation that it returned before: return a copy, or the past changes "
                "for whoever kept it"
            )

    def _look_at_observation(self, observation: Any, source: str) -> None:
        for problem in problems(self.env.observation_space, observation):
            # What is outside differs from step to step; the first is enough to find it by.
            outside = problem.partition("outside of its space")
            self.report.add(f"{source} returns {problem}", kind=source + outside[0] if outside[1] else None)

    def _judge_memory(self, memory: list[tuple[int, float]]) -> None:
        """Growth over the second half, when caches are warm."""
        late = memory[len(memory) // 2 :]
        steps = late[-1][0] - late[0][0]
        if steps <= 0:
            return
        grown = late[-1][1] - late[0][1]
        slope = max(0.0, 1e6 * float(np.polyfit([at for at, _ in late], [used for _, used in late], 1)[0]))
        self.report.megabytes_per_million_steps = slope
        if grown > LEAST_GROWTH and slope > LEAK_MEGABYTES:
            self.report.add(
                f"memory grows by {slope:,.0f} MB a million steps ({grown:.0f} MB in the last {steps:,}): "
                "something is kept from step to step",
                breaks=False,
            )


def problems(space: spaces.Space[Any], value: Any, where: str = "an observation") -> list[str]:
    """How ``value`` differs from what ``space`` says, in words; empty when it fits."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            return [f"{where} of type {type(value).__name__}: the space is a Dict"]
        found = [f"{where} without the entry {key!r}" for key in space.spaces if key not in value]
        found += [f"{where} with the entry {key!r}, which the space lacks" for key in value if key not in space.spaces]
        for key, inner in space.spaces.items():
            if key in value:
                found += problems(inner, value[key], f"{where}'s entry {key!r}")
        return found
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple) or len(value) != len(space.spaces):
            return [f"{where} of type {_kind(value)}: the space is a Tuple of {len(space.spaces)}"]
        return [
            problem
            for index, inner in enumerate(space.spaces)
            for problem in problems(inner, value[index], f"{where}'s entry {index}")
        ]
    if isinstance(space, spaces.Box):
        return _box_problems(space, value, where)
    return [] if space.contains(value) else [f"{where} outside of its space {space}: {value!r}"]


def _box_problems(space: spaces.Box, value: Any, where: str) -> list[str]:
    if not isinstance(value, np.ndarray):
        return [f"{where} of type {type(value).__name__}: it must be a numpy array"]
    if value.shape != space.shape:
        return [f"{where} of shape {value.shape}: the space says {space.shape}"]
    found = []
    if value.dtype != space.dtype:
        found.append(f"{where} of dtype {value.dtype}: the space says {space.dtype}")
    if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
        found.append(f"{where} that is not finite")
    elif (value < space.low).any() or (value > space.high).any():
        worst = np.unravel_index(int(np.argmax(np.maximum(space.low - value, value - space.high))), value.shape)
        index = list(map(int, worst))
        found.append(
            f"{where} outside of its space: index {index} is bounded by {space.low[worst]} and {space.high[worst]}"
        )
    return found


def sample_action(space: spaces.Space[Any], observation: Any) -> Any:
    """A random action, legal where the observation, or an agent's part of it, has a mask for a Discrete space."""
    if isinstance(space, spaces.Dict) and isinstance(observation, Mapping) and "agent" in observation:
        agents = observation["agent"]
        return {name: sample_action(own, agents.get(name)) for name, own in space.spaces.items()}
    mask = observation.get("action_mask") if isinstance(observation, Mapping) else None
    if mask is not None and isinstance(space, spaces.Discrete):
        return space.sample(mask=np.asarray(mask, np.int8))
    return space.sample()


def _check_repeats(env: AnyEnv, report: Report, seed: int) -> None:
    """Two runs from one seed, with the same actions, must be the same."""
    first, second = _trajectory(env, seed), _trajectory(env, seed)
    for step, (one, other) in enumerate(zip(first, second, strict=False)):
        if not _equal(one, other):
            report.add(
                f"two runs from reset(seed={seed}) with the same actions differ from step {step} on: "
                "draw random numbers from self.np_random alone",
                breaks=False,
            )
            return


def _trajectory(env: AnyEnv, seed: int) -> list[Any]:
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    seen: list[Any] = [_copy(observation)]
    for _ in range(REPEATED_STEPS):
        observation, reward, terminated, truncated, _ = env.step(sample_action(env.action_space, observation))
        seen.append((_copy(observation), float(reward), bool(terminated), bool(truncated)))
        if terminated or truncated:
            break
    return seen


def _close(env: AnyEnv, report: Report, children: set[psutil.Process]) -> None:
    try:
        env.close()  # type: ignore[no-untyped-call]
    except Exception as error:
        report.add(f"close() raises {type(error).__name__}: {error}")
    gc.collect()
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - children, timeout=2)
    if left:
        report.add(f"close() leaves {len(left)} processes running, such as {left[0].name()}")


def _copy(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: _copy(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(value) for value in observation)
    return observation.copy() if isinstance(observation, np.ndarray) else observation


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=bool(np.issubdtype(one.dtype, np.floating)))
    return bool(one == other)


def _kind(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__

"""How well a policy does, from whole episodes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from oneiros.algorithms.contract import Mode, Policy
from oneiros.envs.contract import InvalidOption, KnowsBounds, MissingDependency
from oneiros.envs.registry import Vectorization, find, make_vector
from oneiros.envs.vector.fault import EnvironmentBroken
from oneiros.envs.vector.slot import MOST_FAULTS
from oneiros.platform.rollout.episode import Episode
from oneiros.platform.rollout.loop import Rollout
from oneiros.platform.rollout.shares import count_shares, intervals

LONGEST_EPISODE = 1_000_000


@runtime_checkable
class Examines(Protocol):
    """A policy that can say more about the rows that it acted in than what they paid."""

    def examine(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Numbers about rows ``(N, T, ...)``, training-only keys included."""


@runtime_checkable
class Tabulates(Protocol):
    """A policy that can say more than numbers: what plots of its rows are drawn from."""

    def tables(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """Tables by name."""


class EndlessEpisode(RuntimeError):
    """An evaluation episode did not end within the most steps it was given."""


class Film(Protocol):
    """Takes the frames of an episode one by one, so that nobody needs to hold all of them."""

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append ``(height, width, 3)``."""

    def restart(self) -> None:
        """Forget what came so far."""


@dataclass(frozen=True)
class EvaluationResult:
    """Statistics over ``episodes`` whole episodes."""

    episodes: int
    return_mean: float
    return_std: float
    length_mean: float
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    extras: Mapping[str, float] = field(default_factory=dict)
    """Means of what the environment says of its episodes, and what the policy says of its rows (``Examines``)."""
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict, compare=False)
    """What plots of the rows are drawn from (``Tabulates``)."""
    faults: int = 0
    """Episodes that a fault of the environment cut short; they are not among ``episodes``."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Of what every episode says 0 or 1: in how many it was 1."""

    def summary(self) -> dict[str, Any]:
        """Everything but the tables, ready for JSON; ``intervals`` holds Wilson's 95% intervals of the shares."""
        values = asdict(self)
        del values["tables"], values["shares"]
        lists = {"returns": list(self.returns), "lengths": list(self.lengths), "extras": dict(self.extras)}
        return {**values, **lists, "intervals": intervals(self.shares, self.episodes)}


def evaluate(
    env_id: str,
    policy: Policy,
    episodes: int = 20,
    *,
    seed: int = 0,
    mode: Mode = "eval",
    num_envs: int = 8,
    vectorization: Vectorization = "sync",
    env_options: Mapping[str, Any] | None = None,
    film: Film | None = None,
    longest_episode: int = LONGEST_EPISODE,
    device: torch.device | str = "cpu",
    alive: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """Run ``episodes`` episodes of ``env_id``, several at once.

    Each environment contributes a number of episodes fixed beforehand, so that short ones are not counted more often
    for being short. ``film`` is given the frames of the first episode: the environment's ``rgb_array``
    rendering; none where its suite knows no ``render_mode``.
    An option ``seed`` of the environment yields to ``seed``. A policy that ``Examines`` rows is shown all of them, also
    those of the episodes that are under way when the last one that counts ends; a suite that ``KnowsBounds`` tells of
    these, too.
    ``alive`` is called after every step, for whoever watches that there are any.
    Raises ``EndlessEpisode`` if one lasts longer than ``longest_episode`` policy steps, ``EnvironmentBroken`` if twice
    as many episodes as are asked for end in faults.
    """
    if episodes < 1:
        raise ValueError(f"an evaluation has at least 1 episode, not {episodes}")
    num_envs = min(num_envs, episodes)
    options = {key: value for key, value in (env_options or {}).items() if key != "seed"}
    examines = isinstance(policy, Examines)
    if examines and isinstance(suite := find(env_id)[0], KnowsBounds):
        options |= suite.examination
    env, draws = _make(env_id, num_envs, vectorization, seed, options, film is not None)
    examined: list[Mapping[str, NDArray[Any]]] = []
    try:
        rollout = Rollout(env, policy, mode=mode, seed=seed, device=device)
        slots = _Quotas(episodes, num_envs)
        camera = film if draws else None
        if camera is not None:
            camera.add(_frame(env))
        while not slots.full:
            chunk = rollout.collect(1)
            alive()
            if examines:
                examined.append(chunk.rows)
            if camera is not None:
                frame = _frame(env)
                camera.add(frame)
            for episode in rollout.episodes():
                slots.add(episode)
                if slots.faults >= max(MOST_FAULTS, 2 * episodes):
                    whole = len(slots.episodes)
                    raise EnvironmentBroken(
                        f"{env_id} faulted in {slots.faults} episodes, {whole} of {episodes} were whole"
                    )
                if camera is not None and episode.slot == 0 and episode.faulted and not slots.counted[0]:
                    camera.restart()
                    camera.add(frame)
            if slots.counted[0]:
                camera = None
            if rollout.longest > longest_episode:
                raise EndlessEpisode(
                    f"an evaluation episode of {env_id} goes on after {longest_episode} steps: give it a time_limit"
                )
    finally:
        env.close()
    rows = {key: np.concatenate([step[key] for step in examined], 1) for key in examined[0]} if examined else {}
    said = policy.examine(rows) if isinstance(policy, Examines) else {}
    tables = policy.tables(rows) if examines and isinstance(policy, Tabulates) else {}
    return _result(slots, said, tables)


def _make(
    env_id: str,
    num_envs: int,
    vectorization: Vectorization,
    seed: int,
    options: Mapping[str, Any],
    record: bool,
) -> tuple[VectorEnv[Any, Any, Any], bool]:
    """The environments, and whether they draw."""
    if record:
        # Frames are drawn in memory; pygame would look for a screen and for loudspeakers, and complain.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
        # A suite need not know the option, and says so in its own way; without it, what is wrong shows itself below.
        with contextlib.suppress(InvalidOption, MissingDependency, TypeError):
            return make_vector(env_id, num_envs, vectorization, seed, **{**options, "render_mode": "rgb_array"}), True
    return make_vector(env_id, num_envs, vectorization, seed, **options), False


def _frame(env: VectorEnv[Any, Any, Any]) -> NDArray[np.uint8]:
    rendered: tuple[Any, ...] = env.render() or ()
    return np.array(rendered[0], np.uint8)


class _Quotas:
    """The episodes that count: the first so many of each environment."""

    def __init__(self, episodes: int, num_envs: int) -> None:
        self.quota = [episodes // num_envs + (slot < episodes % num_envs) for slot in range(num_envs)]
        self.counted = [0] * num_envs
        self.episodes: list[Episode] = []
        self.faults = 0

    @property
    def full(self) -> bool:
        return self.counted == self.quota

    def add(self, episode: Episode) -> None:
        if self.counted[episode.slot] == self.quota[episode.slot]:
            return
        if episode.faulted:
            self.faults += 1
            return
        self.counted[episode.slot] += 1
        self.episodes.append(episode)


def _result(
    slots: _Quotas,
    said: Mapping[str, float],
    tables: Mapping[str, NDArray[np.float64]],
) -> EvaluationResult:
    scores = np.array([episode.score for episode in slots.episodes])
    keys = sorted({key for episode in slots.episodes for key in episode.extras})
    return EvaluationResult(
        episodes=len(scores),
        return_mean=float(scores.mean()),
        return_std=float(scores.std()),
        length_mean=float(np.mean([episode.length for episode in slots.episodes])),
        returns=tuple(float(score) for score in scores),
        lengths=tuple(episode.length for episode in slots.episodes),
        extras={key: float(np.mean([episode.extras.get(key, 0.0) for episode in slots.episodes])) for key in keys}
        | dict(said),
        tables=tables,
        faults=slots.faults,
        shares=count_shares([episode.extras for episode in slots.episodes]),
    )

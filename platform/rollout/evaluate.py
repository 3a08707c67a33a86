"""How well a policy does, from whole episodes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
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
from oneiros.platform.rollout.result import EvaluationResult
from oneiros.platform.rollout.shares import count_shares

LONGEST_EPISODE = 1_000_000


@runtime_checkable
class Examines(Protocol):
    """A policy that can say more about the rows that it acted in than what they paid."""

    def reads(self, key: str) -> bool:
        """Whether this entry of the rows is needed: all of an evaluation's lie in memory until it ends."""

    def examine(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Numbers about rows ``(N, T, ...)``, training-only keys included."""


@runtime_checkable
class Tabulates(Protocol):
    """A policy that can say more than numbers: what plots of its rows are drawn from."""

    def tables(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """Tables by name."""


@runtime_checkable
class Corresponds(Protocol):
    """A policy whose agents may send each other messages, and that can say what became of each."""

    def keep_messages(self, keep: bool) -> bool:
        """Whether rows from now on say what ``messages`` needs; returns whether any are sent at all."""

    def messages(self, rows: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
        """What became of the messages of one episode, whose rows are ``(T, ...)``; a message's ``step`` is a row."""


class EndlessEpisode(RuntimeError):
    """An evaluation episode did not end within the most steps it was given."""


class Film(Protocol):
    """Takes the frames of an episode one by one, so that nobody needs to hold all of them."""

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append ``(height, width, 3)``."""

    def restart(self) -> None:
        """Forget what came so far."""


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
    messages: Callable[[Mapping[str, Any]], None] | None = None,
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
    these, too. Where the policy ``Corresponds``, ``messages`` is given what became of every message of the episodes
    that count, and the number of its ``episode`` among the ``returns``.
    ``alive`` is called after every step, for whoever watches that there are any.
    Raises ``EndlessEpisode`` if one lasts longer than ``longest_episode`` policy steps, ``EnvironmentBroken`` if twice
    as many episodes as are asked for end in faults.
    """
    if episodes < 1:
        raise ValueError(f"an evaluation has at least 1 episode, not {episodes}")
    num_envs = min(num_envs, episodes)
    options = {key: value for key, value in (env_options or {}).items() if key != "seed"}
    examines = isinstance(policy, Examines)
    correspondent = policy if messages is not None and isinstance(policy, Corresponds) else None
    if examines and isinstance(suite := find(env_id)[0], KnowsBounds):
        options |= suite.examination
    env, draws = _make(env_id, num_envs, vectorization, seed, options, film is not None)
    examined: list[dict[str, NDArray[Any]]] = []
    try:
        if correspondent is not None and not correspondent.keep_messages(True):
            correspondent = None
        rollout = Rollout(env, policy, mode=mode, seed=seed, device=device)
        slots = _Quotas(episodes, num_envs)
        camera = film if draws else None
        if camera is not None:
            camera.add(_frame(env))
        while not slots.full:
            chunk = rollout.collect(1)
            alive()
            if examines or correspondent is not None:
                examined.append(_kept(chunk.rows, policy))
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
        # The last observations of the episodes that ended just now are rows that nobody has asked for yet.
        final = _kept(rollout.collect(1).rows, policy) if correspondent is not None else {}
    finally:
        env.close()
        if correspondent is not None:
            correspondent.keep_messages(False)
    rows = _joined(examined)
    if correspondent is not None and messages is not None:
        played = _joined([dict(rows), final])
        for number, (slot, nth) in enumerate(slots.places):
            for message in correspondent.messages(_episode(played, slot, nth)):
                messages({"episode": number, **message})
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


def _kept(rows: dict[str, NDArray[Any]], policy: Policy) -> dict[str, NDArray[Any]]:
    """What ``policy`` reads of ``rows``; all, where it does not say."""
    return {key: value for key, value in rows.items() if not isinstance(policy, Examines) or policy.reads(key)}


def _joined(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Rows ``(N, T, ...)`` that follow each other as one; takes them out of ``parts``, lest both lie in memory."""
    return {key: np.concatenate([part.pop(key) for part in parts], 1) for key in list(parts[0])} if parts else {}


def _episode(rows: Mapping[str, NDArray[Any]], slot: int, nth: int) -> dict[str, NDArray[Any]]:
    """Rows ``(T, ...)`` of the episode that began as the ``nth``, from 0 on, in ``slot``."""
    begins = [*np.flatnonzero(rows["is_first"][slot]), rows["is_first"].shape[1]]
    return {key: values[slot, begins[nth] : begins[nth + 1]] for key, values in rows.items()}


def _frame(env: VectorEnv[Any, Any, Any]) -> NDArray[np.uint8]:
    rendered: tuple[Any, ...] = env.render() or ()
    return np.array(rendered[0], np.uint8)


class _Quotas:
    """The episodes that count: the first so many of each environment."""

    def __init__(self, episodes: int, num_envs: int) -> None:
        self.quota = [episodes // num_envs + (slot < episodes % num_envs) for slot in range(num_envs)]
        self.counted = [0] * num_envs
        self.ended = [0] * num_envs
        self.episodes: list[Episode] = []
        self.places: list[tuple[int, int]] = []
        """Of each of these its slot, and how many ended there before it."""
        self.faults = 0

    @property
    def full(self) -> bool:
        return self.counted == self.quota

    def add(self, episode: Episode) -> None:
        place = (episode.slot, self.ended[episode.slot])
        self.ended[episode.slot] += 1
        if self.counted[episode.slot] == self.quota[episode.slot]:
            return
        if episode.faulted:
            self.faults += 1
            return
        self.counted[episode.slot] += 1
        self.episodes.append(episode)
        self.places.append(place)


def _result(
    slots: _Quotas,
    said: Mapping[str, float],
    tables: Mapping[str, NDArray[np.float64]],
) -> EvaluationResult:
    keys = sorted({key for episode in slots.episodes for key in episode.extras})
    return EvaluationResult(
        returns=tuple(episode.score for episode in slots.episodes),
        lengths=tuple(episode.length for episode in slots.episodes),
        extras={key: float(np.mean([episode.extras.get(key, 0.0) for episode in slots.episodes])) for key in keys}
        | dict(said),
        tables=tables,
        faults=slots.faults,
        shares=count_shares([episode.extras for episode in slots.episodes]),
    )

"""Hanabi, PettingZoo's over OpenSpiel: ``hanabi/full``, ``hanabi/two-colours`` and others.

Everybody sees all cards but their own. The target of belief is ``hand``: the kind of each of one's own cards, one kind
for each colour and rank, and one more for a card that is not there any more. With the option ``oracle``, training is
also told the exact posterior over one's own cards given the cards that one sees and the hints that one was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.multiagent.joint import JointEnv, joint

COLOURS = "RYGWB"
COPIES = (3, 2, 2, 2, 1)
"""Cards of each rank in a colour."""
GAMES: Mapping[str, Mapping[str, int]] = {
    "full": {"colors": 5, "ranks": 5, "players": 2, "hand_size": 5, "max_information_tokens": 8, "max_life_tokens": 3},
    "small": {"colors": 2, "ranks": 5, "players": 2, "hand_size": 2, "max_information_tokens": 3, "max_life_tokens": 1},
    "two-colours": {
        **{"colors": 2, "ranks": 5, "players": 2, "hand_size": 5},
        **{"max_information_tokens": 8, "max_life_tokens": 3},
    },
}
OPTIONS = ("colors", "ranks", "players", "hand_size", "max_information_tokens", "max_life_tokens")
HAND = re.compile(r"^(\w\w) \|\| \w\w\|(\w+)$")


class Game:
    """PettingZoo's Hanabi, with what its players would like to know."""

    def __init__(self, env: Any, settings: Mapping[str, int], oracle: bool) -> None:
        self.env = env
        # Shimmy builds the same spaces anew at every turn, which takes longer than the turn itself.
        env.hanabi_env._update_observation_spaces = env.hanabi_env._update_action_spaces = _nothing_to_do
        self.colours = COLOURS[: settings["colors"]]
        self.ranks, self.hand_size = settings["ranks"], settings["hand_size"]
        self.kinds = len(self.colours) * self.ranks
        self.copies = np.tile(_copies(self.ranks), len(self.colours))
        hand = spaces.MultiDiscrete([self.kinds + 1] * self.hand_size)
        self.belief_spaces = {name: {"hand": hand} for name in env.possible_agents}
        box = spaces.Box(0, 1, (self.hand_size, self.kinds + 1), np.float32)
        self.oracle_spaces = {name: {"hand": box} if oracle else {} for name in env.possible_agents}
        self._read: tuple[Any, list[int], NDArray[np.int64]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Deal; OpenSpiel takes seeds of 31 bits only."""
        self.env.reset(seed=None if seed is None else seed % 2**31, options=options)

    def observe(self, agent: str) -> dict[str, Any]:
        """What ``agent`` sees now; once the game is over, Shimmy still shows what was before the last turn."""
        seen = dict(self.env.observe(agent))
        state = self.env.hanabi_env.game_state
        if state.is_terminal():
            numbers = state.observation_tensor(self.env.possible_agents.index(agent))
            seen["observation"] = np.reshape(numbers, seen["observation"].shape)
        return seen

    def beliefs(self, agent: str) -> Mapping[str, NDArray[np.int64]]:
        """The kinds of the cards that ``agent`` holds."""
        return {"hand": self._held()[self.env.possible_agents.index(agent)]}

    def _held(self) -> NDArray[np.int64]:
        """The kinds of all cards ``(players, hand_size)``, read once a turn."""
        state = self.env.hanabi_env.game_state
        history = state.history()
        if self._read is None or self._read[0] is not state or self._read[1] != history:
            held = np.full((len(self.env.possible_agents), self.hand_size), self.kinds, np.int64)
            for own, (cards, _) in zip(held, self._hands(str(state)), strict=True):
                own[: len(cards)] = [self.kind(card) for card in cards]
            self._read = state, history, held
        return self._read[2]

    def oracles(self, agent: str) -> Mapping[str, NDArray[np.float32]]:
        """The exact posterior over each of the cards of ``agent``."""
        seen = self.env.hanabi_env.game_state.observation_string(self.env.possible_agents.index(agent))
        hands = self._hands(seen)
        _, hints = hands[0]
        unseen = self.copies.copy()
        for cards, _ in hands[1:]:
            for card in cards:
                unseen[self.kind(card)] -= 1
        fields = dict(line.split(":", 1) for line in seen.splitlines() if ":" in line)
        for card in fields.get("Discards", "").split():
            unseen[self.kind(card)] -= 1
        for card in fields["Fireworks"].split():
            for rank in range(1, int(card[1]) + 1):
                unseen[self.kind(f"{card[0]}{rank}")] -= 1
        allowed = np.array([[self._fits(kind, hint) for kind in range(self.kinds)] for hint in hints], np.float64)
        posterior = np.zeros((self.hand_size, self.kinds + 1), np.float32)
        posterior[:, self.kinds] = 1.0
        if len(hints):
            posterior[: len(hints), : self.kinds] = exact_posterior(unseen, allowed.reshape(-1, self.kinds))
            posterior[: len(hints), self.kinds] = 0.0
        return {"hand": posterior}

    def kind(self, card: str) -> int:
        """The number of a card such as ``R3``."""
        return self.colours.index(card[0]) * self.ranks + int(card[1]) - 1

    def _fits(self, kind: int, hint: str) -> bool:
        return self.colours[kind // self.ranks] in hint and str(kind % self.ranks + 1) in hint

    @staticmethod
    def _hands(text: str) -> list[tuple[list[str], list[str]]]:
        """Every hand: its cards, and the colours and ranks that each can have by the hints given."""
        hands = text.partition("Hands:\n")[2].partition("\nDeck size")[0].split("-----")
        found = []
        for hand in hands:
            matches = [match for line in hand.splitlines() if (match := HAND.match(line.strip()))]
            found.append(([match[1] for match in matches], [match[2] for match in matches]))
        return found


def exact_posterior(unseen: NDArray[np.int64], allowed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The marginals ``(cards, kinds)`` of a hand dealt from ``unseen`` ``(kinds,)`` cards, where card k can only be of
    the kinds that ``allowed`` ``(cards, kinds)`` says.

    Sums over all ways to deal the hand, kind by kind over the sets of cards that are already accounted for, so that
    the time grows with the number of kinds and not with that of hands.
    """
    cards, kinds = allowed.shape
    before, given, after = _disjoint(cards)
    members = (np.arange(2**cards)[:, None] >> np.arange(cards)) & 1
    sizes = members.sum(1)
    ways = np.ones((kinds, cards + 1))
    for size in range(cards):
        ways[:, size + 1] = ways[:, size] * np.maximum(0, unseen - size)
    # Of each kind and set of cards: in how many ways all of these are of this kind, and 0 if one of them cannot be.
    weights = ways[:, sizes] * ((allowed.T == 0) @ members.T.astype(np.float64) == 0)
    forward = np.zeros((kinds + 1, 2**cards))
    backward = np.zeros((kinds + 1, 2**cards))
    forward[0, 0] = backward[kinds, -1] = 1
    for k in range(kinds):
        forward[k + 1] = np.bincount(after, forward[k, before] * weights[k, given], 2**cards)
    for k in reversed(range(kinds)):
        backward[k] = np.bincount(before, backward[k + 1, after] * weights[k, given], 2**cards)
    shares = np.stack(
        [np.bincount(given, forward[k, before] * backward[k + 1, after], 2**cards) for k in range(kinds)], 1
    )
    marginals: NDArray[np.float64] = members.T @ (shares * weights.T) / forward[kinds, -1]
    return marginals


@cache
def _disjoint(cards: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every pair of disjoint sets of cards, as bits, and the union of each pair."""
    sets = np.arange(2**cards)
    one, other = np.nonzero((sets[:, None] & sets) == 0)
    return one, other, one | other


def _nothing_to_do() -> None:
    pass


def _copies(ranks: int) -> NDArray[np.int64]:
    return np.array([*COPIES[: ranks - 1], 1], np.int64)


class HanabiSuite:
    """Games of different decks and hands."""

    name = "hanabi"
    description = "Hanabi: everybody sees the others' cards, nobody their own; hints are the only words"
    requirement = Requirement("pip install 'oneiros[hanabi]'", ("pettingzoo", "shimmy", "pyspiel"))
    examination: Mapping[str, Any] = {"oracle": True}

    def tasks(self) -> Sequence[str]:
        """The games; every option of PettingZoo's makes others of them."""
        return sorted(GAMES)

    def make(self, task: str, *, oracle: bool = False, render_mode: str | None = None, **options: Any) -> JointEnv:
        """Build one game; ``oracle`` tells training the exact posterior, too."""
        if task not in GAMES:
            raise UnknownEnvironment()
        for key in options:
            if key not in OPTIONS:
                raise InvalidOption(f"hanabi/{task} takes no option {key!r}: there are oracle, {', '.join(OPTIONS)}")
        settings = {**GAMES[task], **options}
        from pettingzoo.classic.hanabi.hanabi import raw_env

        try:
            env = raw_env(render_mode=render_mode, **settings)
        except ValueError as error:
            raise InvalidOption(f"hanabi/{task} cannot be played with {settings}: {error}") from error
        return joint(Game(env, settings, oracle))


SUITE = HanabiSuite()

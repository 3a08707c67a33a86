"""PettingZoo's Butterfly games: ``butterfly/cooperative_pong``, ``butterfly/pistonball`` and others.

Their images are large; the option ``size`` scales them, which every network here is glad of.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.multiagent.joint import JointEnv, joint

MODULES = {
    "cooperative_pong": "cooperative_pong_v6",
    "knights_archers_zombies": "knights_archers_zombies_v11",
    "pistonball": "pistonball_v6",
}


class ButterflySuite:
    """The three games that all play together."""

    name = "butterfly"
    description = "PettingZoo's cooperative games: pong, pistonball, and knights, archers, zombies"
    requirement = Requirement("pip install 'oneiros[butterfly]'", ("pettingzoo", "pygame", "pymunk"))

    def tasks(self) -> Sequence[str]:
        """Their names, without versions."""
        return sorted(MODULES)

    def make(self, task: str, **options: Any) -> JointEnv:
        """Build one; ``options`` are the game's own."""
        if task not in MODULES:
            raise UnknownEnvironment()
        module = importlib.import_module(f"pettingzoo.butterfly.{MODULES[task]}")
        try:
            return joint(module.parallel_env(**options))
        except TypeError as error:
            raise InvalidOption(
                f"butterfly/{task} takes no such option ({error}); PettingZoo's page of it lists them"
            ) from error


SUITE = ButterflySuite()

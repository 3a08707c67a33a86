"""Level-based foraging and robot warehouses: ``lbforaging/2s-8x8-2p-2f-coop``, ``rware/tiny-2ag``.

Tasks are named as the packages register them, without what all names share. Foragers would like to know where the
others (``partners``) and the food (``food``) are; in tasks that begin with ``2s`` they see two cells far.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.multiagent.joint import JointEnv, joint
from oneiros.envs.multiagent.tuples import TupleWorld


class Foraging(TupleWorld):
    """Level-based foraging, with what its agents would like to know: how many rows and columns away things are.

    A distance ``d`` along a side of ``n`` cells is the class ``d + n - 1``; food that is gone has the class after the
    last, ``2 n - 1``.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.world = cast(Any, env.unwrapped)
        self.sides = np.array(self.world.field_size)
        others = [*(2 * self.sides - 1)] * (len(self.possible_agents) - 1)
        targets = {
            "partners": spaces.MultiDiscrete(others),
            "food": spaces.MultiDiscrete([*(2 * self.sides)] * self.world.max_num_food),
        }
        self.belief_spaces = {name: targets for name in self.possible_agents}
        self.food: list[tuple[int, int]] = []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Begin an episode."""
        begun = super().reset(seed, options)
        self.food = [(int(row), int(col)) for row, col in np.argwhere(self.world.field > 0)]
        return begun

    def beliefs(self, agent: str) -> Mapping[str, NDArray[np.int64]]:
        """How far from ``agent`` the others and each of the pieces of food are."""
        index = self.possible_agents.index(agent)
        own = np.array(self.world.players[index].position)
        others = [p.position for i, p in enumerate(self.world.players) if i != index]
        food = np.tile(2 * self.sides - 1, (self.world.max_num_food, 1))
        for i, cell in enumerate(self.food):
            if self.world.field[cell] > 0:
                food[i] = np.array(cell) - own + self.sides - 1
        partners = np.array(others) - own + self.sides - 1
        return {"partners": partners.flatten().astype(np.int64), "food": food.flatten().astype(np.int64)}


class TupleSuite:
    """The environments of one package whose agents' spaces are Tuples."""

    def __init__(
        self, name: str, module: str, prefix: str, suffix: str, description: str, world: type[TupleWorld] = TupleWorld
    ) -> None:
        self.name, self.module, self.prefix, self.suffix = name, module, prefix, suffix
        self.description, self.world = description, world
        self.requirement = Requirement(f"pip install 'oneiros[{name}]'", (module,))

    def tasks(self) -> Sequence[str]:
        """The names registered; none where the package is not installed."""
        if self.requirement.missing():
            return []
        importlib.import_module(self.module)
        return sorted(
            env_id.removeprefix(self.prefix).removesuffix(self.suffix)
            for env_id in gymnasium.registry
            if env_id.startswith(self.prefix) and env_id.endswith(self.suffix)
        )

    def make(self, task: str, **options: Any) -> JointEnv:
        """Build one; ``options`` are the package's own."""
        importlib.import_module(self.module)
        env_id = f"{self.prefix}{task}{self.suffix}"
        if env_id not in gymnasium.registry:
            raise UnknownEnvironment()
        try:
            env = gymnasium.make(env_id, disable_env_checker=True, **options)
        except TypeError as error:
            raise InvalidOption(f"{self.name}/{task} takes no such option ({error})") from error
        return joint(self.world(env))


FORAGING = TupleSuite(
    "lbforaging",
    "lbforaging",
    "Foraging-",
    "-v3",
    "Level-based foraging: agents load food together that none can alone",
    Foraging,
)
WAREHOUSE = TupleSuite("rware", "rware", "rware-", "-v2", "Robot warehouses: agents fetch shelves and get in their way")

"""Level-based foraging and robot warehouses: ``lbforaging/2s-8x8-2p-2f-coop``, ``rware/tiny-2ag``.

Tasks are named as the packages register them, without what all names share.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.multiagent.joint import JointEnv, joint
from oneiros.envs.multiagent.tuples import TupleWorld


class TupleSuite:
    """The environments of one package whose agents' spaces are Tuples."""

    def __init__(self, name: str, module: str, prefix: str, suffix: str, description: str) -> None:
        self.name, self.module, self.prefix, self.suffix = name, module, prefix, suffix
        self.description = description
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
        return joint(TupleWorld(env))


FORAGING = TupleSuite(
    "lbforaging",
    "lbforaging",
    "Foraging-",
    "-v3",
    "Level-based foraging: agents load food together that none can alone",
)
WAREHOUSE = TupleSuite("rware", "rware", "rware-", "-v2", "Robot warehouses: agents fetch shelves and get in their way")

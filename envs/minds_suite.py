"""Small worlds of several minds, which come with Oneiros: ``minds/boxes``.

For trying out beliefs about beliefs where the truth is known: who can have seen what, and who must be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray
from oneiros.envs.contract import NOTHING, InvalidOption, UnknownEnvironment
from oneiros.envs.multiagent.aspects import Aspect, AspectSpec
from oneiros.envs.multiagent.joint import JointEnv, joint

Step = tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]


class Boxes:
    """A marble lies in one of ``boxes``, and moves now and then; Sally goes out and comes back, Anne stays.

    A PettingZoo ``ParallelEnv``. Anne always sees the marble and whether Sally is here; Sally sees the marble only
    while she is here. Each step, Sally is paid 1 for naming the box that the marble is in, Anne 1 for naming the box
    that Sally names. So Sally has to remember, and Anne has to know what Sally believes, also where Sally is wrong:
    naming the true box pays Anne less. The target of both is ``marble``.

    The ``oracle`` of Anne is what she sees; Sally's is where the marble she last saw can have got to since.

    Over ``length`` 20 steps, with 3 boxes and the chances below: at best Sally gets about 15 and Anne 20.
    """

    metadata: Mapping[str, Any] = {"name": "boxes", "is_parallelizable": True}
    possible_agents = ("anne", "sally")
    MOVES, LEAVES, RETURNS = 0.25, 0.3, 0.3
    """Chances a step that the marble moves, that Sally goes out, and that she comes back."""

    def __init__(self, boxes: int = 3, length: int = 20) -> None:
        self.boxes, self.length = boxes, length
        self.full = spaces.Dict(
            {"marble": spaces.Discrete(boxes), "here": spaces.Discrete(2), "seen": spaces.Discrete(boxes + 1)}
        )
        self.aspects = {
            "anne": AspectSpec({"marble": Aspect("marble"), "here": Aspect("here")}),
            "sally": AspectSpec({"seen": Aspect("seen"), "here": Aspect("here")}),
        }
        self.belief_spaces: dict[str, dict[str, spaces.Space[Any]]] = {
            name: {"marble": spaces.Discrete(boxes)} for name in self.possible_agents
        }
        box = spaces.Box(0, 1, (1, boxes), np.float32)
        self.oracle_spaces: dict[str, dict[str, spaces.Space[Any]]] = {
            name: {"marble": box} for name in self.possible_agents
        }
        self.agents: list[str] = []
        self.rng, _ = seeding.np_random(0)
        self.marble, self.here, self.time = 0, 1, 0
        self.known = self._certain()

    def observation_space(self, agent: str) -> spaces.Dict:
        """The declared aspects of the whole."""
        return self.aspects[agent].space(self.full)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """One action a box."""
        return spaces.Discrete(self.boxes)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Put the marble somewhere; Sally is here."""
        if seed is not None:
            self.rng, _ = seeding.np_random(seed)
        self.agents = list(self.possible_agents)
        self.marble, self.here, self.time = int(self.rng.integers(self.boxes)), 1, 0
        self.known = self._certain()
        return self._observe(), {name: {} for name in self.agents}

    def step(self, actions: Mapping[str, Any]) -> Step:
        """Pay for what was named, then let marble and Sally move."""
        rewards = {
            "sally": float(int(actions["sally"]) == self.marble),
            "anne": float(int(actions["anne"]) == int(actions["sally"])),
        }
        if self.rng.random() < (self.LEAVES if self.here else self.RETURNS):
            self.here = 1 - self.here
        if self.rng.random() < self.MOVES:
            self.marble = int((self.marble + self.rng.integers(1, self.boxes)) % self.boxes)
        # From any other box it comes here with the same chance.
        moved = (1 - self.known) * self.MOVES / (self.boxes - 1)
        self.known = self._certain() if self.here else (1 - self.MOVES) * self.known + moved
        self.time += 1
        over = self.time == self.length
        flags = dict.fromkeys(self.possible_agents, over)
        if over:
            self.agents = []
        none = dict.fromkeys(self.possible_agents, False)
        return self._observe(), rewards, flags, none, {name: {} for name in self.possible_agents}

    def beliefs(self, agent: str) -> Mapping[str, int]:
        """Where the marble is."""
        return {"marble": self.marble}

    def oracles(self, agent: str) -> Mapping[str, NDArray[np.float32]]:
        """What can be known of where the marble is."""
        known = self._certain() if agent == "anne" else self.known
        return {"marble": known[None].astype(np.float32)}

    def get_state(self) -> Mapping[str, Any]:
        """Everything that later steps depend on."""
        state = {"marble": self.marble, "here": self.here, "time": self.time, "agents": list(self.agents)}
        state["known"] = self.known.copy()
        return {**state, "rng": dict(self.rng.bit_generator.state)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        self.marble, self.here, self.time = int(state["marble"]), int(state["here"]), int(state["time"])
        self.agents = list(state["agents"])
        # States of before there was an oracle lack what Sally could know.
        self.known = np.array(state.get("known", self._certain()), np.float64)
        self.rng.bit_generator.state = dict(state["rng"])

    def render(self) -> None:
        """There is nothing to see."""

    def close(self) -> None:
        """There is nothing to close."""

    def _certain(self) -> NDArray[np.float64]:
        certain: NDArray[np.float64] = np.eye(self.boxes)[self.marble]
        return certain

    def _observe(self) -> dict[str, Any]:
        seen = self.marble if self.here else self.boxes
        whole = {"marble": np.int64(self.marble), "here": np.int64(self.here), "seen": np.int64(seen)}
        return {name: self.aspects[name].construct(whole) for name in self.possible_agents}


class MindsSuite:
    """``boxes``: false belief, as in the story of Sally and Anne."""

    name = "minds"
    description = "Small worlds of several minds: beliefs about beliefs, with the truth known"
    requirement = NOTHING

    def tasks(self) -> Sequence[str]:
        """Their names."""
        return ["boxes"]

    def make(self, task: str, *, boxes: int = 3, length: int = 20, **unknown: Any) -> JointEnv:
        """Build one; ``boxes``: how many; ``length``: steps of an episode."""
        if task != "boxes":
            raise UnknownEnvironment()
        if unknown:
            raise InvalidOption(f"minds/{task} takes no option {min(unknown)!r}: there are boxes and length")
        if boxes < 2 or length < 1:
            raise InvalidOption(f"minds/{task} needs at least 2 boxes and 1 step, not {boxes} and {length}")
        return joint(Boxes(boxes, length))


SUITE = MindsSuite()

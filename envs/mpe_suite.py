"""Multi-agent particle environments (mpe2): ``mpe/simple_speaker_listener``, ``mpe/simple_reference`` and others.

The targets of belief are the goal landmarks: in ``simple_speaker_listener`` the listener's (the speaker sees it), in
``simple_reference`` each agent's own, which only the other sees. Mean return of an agent in ``simple_speaker_listener``
over its 25 steps, of scripted listeners (``tests/benchmarks/speaker_listener_bounds.py``): with the goal known -7.2; in
the middle of the landmarks, which needs no hearing, -15.7; doing nothing -33.1. Random actions get -41.1.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gymnasium import spaces
from oneiros.envs.contract import InvalidOption, Requirement, UnknownEnvironment
from oneiros.envs.multiagent.aspects import Aspect, AspectSpec
from oneiros.envs.multiagent.joint import JointEnv, joint


class ParticleWorld:
    """One of mpe2's parallel environments, with what its agents would like to know."""

    def __init__(self, env: Any, task: str) -> None:
        self.env = env
        self.aspects: dict[str, AspectSpec] = {}
        self.belief_spaces: dict[str, dict[str, spaces.Space[Any]]] = {}
        landmarks = env.unwrapped.world.landmarks
        if task == "simple_speaker_listener":
            self.belief_spaces = {name: {"goal": spaces.Discrete(len(landmarks))} for name in env.possible_agents}
            place, heard = 2 + 2 * len(landmarks), env.unwrapped.world.dim_c
            self.aspects = {
                "speaker_0": AspectSpec({"goal": Aspect("", 0, 3)}),
                "listener_0": AspectSpec(
                    {
                        "velocity": Aspect("", 0, 2),
                        "landmarks": Aspect("", 2, place),
                        "heard": Aspect("", place, place + heard),
                    }
                ),
            }
        elif task == "simple_reference":
            self.belief_spaces = {name: {"goal": spaces.Discrete(len(landmarks))} for name in env.possible_agents}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def beliefs(self, agent: str) -> Mapping[str, int]:
        """The number of the landmark that ``agent`` has to reach, or has to send the other to."""
        world = self.env.unwrapped.world
        if "listener_0" in self.env.possible_agents:
            goal = world.agents[0].goal_b
        else:
            # goal_b is where the agent wants the other to go: its own goal is the other's wish.
            goal = next(other.goal_b for other in world.agents if other.name != agent)
        return {"goal": next(i for i, landmark in enumerate(world.landmarks) if landmark is goal)}


class ParticleSuite:
    """Every scenario that mpe2 has."""

    name = "mpe"
    description = "Multi-agent particle environments: several agents, with a goal that only some see"
    requirement = Requirement("pip install 'oneiros[mpe]'", ("mpe2",))

    def tasks(self) -> Sequence[str]:
        """The scenarios, without their version; none where mpe2 is not installed."""
        return sorted(_scenarios())

    def make(
        self,
        task: str,
        *,
        continuous_actions: bool = False,
        max_cycles: int = 25,
        render_mode: str | None = None,
        aspects: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> JointEnv:
        """Build one scenario; ``aspects`` limits agents to these aspects of what they see (``AspectSpec``)."""
        modules = _scenarios()
        if task not in modules:
            raise UnknownEnvironment()
        module = importlib.import_module(f"mpe2.{modules[task]}")
        try:
            env = module.parallel_env(
                continuous_actions=continuous_actions, max_cycles=max_cycles, render_mode=render_mode, **options
            )
        except TypeError as error:
            raise InvalidOption(
                f"mpe/{task} takes no such option ({error}): there are continuous_actions, max_cycles, aspects and "
                "those of the scenario"
            ) from error
        return joint(ParticleWorld(env, task), aspects)


def _scenarios() -> dict[str, str]:
    """The newest module of each scenario, found without importing any."""
    spec = find_spec("mpe2")
    if spec is None or not spec.submodule_search_locations:
        return {}
    names = {path.stem for path in Path(next(iter(spec.submodule_search_locations))).glob("simple*_v*.py")}
    found: dict[str, str] = {}
    for name in sorted(names):
        found[name.rpartition("_")[0]] = name
    return found


SUITE = ParticleSuite()

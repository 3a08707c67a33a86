"""The agents of PettingZoo's two interfaces: all at once (``ParallelEnv``), and one after another (``AECEnv``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oneiros.envs.multiagent.contract import Actions, AnySpace


class PettingZooPlayers:
    """What both interfaces share."""

    turn_based = False

    def __init__(self, env: Any) -> None:
        self.env = env
        self.names: tuple[str, ...] = tuple(env.possible_agents)
        self.observation_spaces: Mapping[str, AnySpace] = {name: env.observation_space(name) for name in self.names}
        self.action_spaces: Mapping[str, AnySpace] = {name: env.action_space(name) for name in self.names}
        self.observations: Mapping[str, Any] = {}
        self.terminal: frozenset[str] = frozenset()

    def ended(self) -> tuple[bool, bool]:
        """Over when nobody is left: terminated if all that were there in the last step were, else truncated."""
        over = not self.env.agents
        terminated = over and self.terminal >= self.observations.keys()
        return terminated, over and not terminated


class ParallelPlayers(PettingZooPlayers):
    """Agents that all act in every step; those that are gone are left out of it."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Begin an episode."""
        self.observations, _ = self.env.reset(seed=seed, options=options)
        self.terminal = frozenset()

    def step(self, actions: Actions) -> Mapping[str, float]:
        """Execute the actions of the agents that are there."""
        before = set(self.env.agents)
        observations, rewards, terminations, _, _ = self.env.step({name: actions[name] for name in self.env.agents})
        there = before | set(self.env.agents)
        self.observations = {name: seen for name, seen in observations.items() if name in there}
        self.terminal = frozenset(name for name, over in terminations.items() if over)
        return {name: float(reward) for name, reward in rewards.items()}

    def turn(self, name: str) -> bool:
        """Every agent that is there acts in every step."""
        return name in self.env.agents


class TurnPlayers(PettingZooPlayers):
    """Agents that act one after another; a joint step is one turn, and all agents look at what came of it."""

    turn_based = True

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """Begin an episode."""
        self.env.reset(seed=seed, options=options)
        self._look()

    def step(self, actions: Actions) -> Mapping[str, float]:
        """Execute the action of the one agent whose turn it is."""
        self.env.step(actions[self.env.agent_selection])
        rewards = {name: float(reward) for name, reward in self.env.rewards.items()}
        self._look()
        return rewards

    def turn(self, name: str) -> bool:
        """Whether it is the turn of ``name``."""
        return name in self.env.agents and self.env.agent_selection == name

    def _look(self) -> None:
        """Take every agent's observation, then let those that are over leave by the empty turn PettingZoo wants."""
        env = self.env
        self.observations = {name: env.observe(name) for name in env.agents}
        self.terminal = frozenset(name for name in env.agents if env.terminations[name])
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)

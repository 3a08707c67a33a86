"""Gymnasium environments of several agents whose spaces are Tuples, as a PettingZoo ``ParallelEnv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import UnsupportedSpace


class TupleWorld:
    """One entry of the Tuples an agent, ``agent_0`` to ``agent_{n - 1}``; all live as long as the episode."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        if not isinstance(env.observation_space, spaces.Tuple) or not isinstance(env.action_space, spaces.Tuple):
            raise UnsupportedSpace(f"{env} has no Tuple of observations and of actions, one entry an agent")
        self.env = env
        self.metadata = dict(env.metadata)
        self.render_mode = env.render_mode
        self.possible_agents = tuple(f"agent_{i}" for i in range(len(env.action_space.spaces)))
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """This agent's entry."""
        assert isinstance(self.env.observation_space, spaces.Tuple)
        return self.env.observation_space.spaces[self.possible_agents.index(agent)]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """This agent's entry."""
        assert isinstance(self.env.action_space, spaces.Tuple)
        return self.env.action_space.spaces[self.possible_agents.index(agent)]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Begin an episode."""
        observations, _ = self.env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return dict(zip(self.possible_agents, observations, strict=True)), {}

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Execute everyone's action."""
        observations, rewards, terminated, truncated, _ = self.env.step(tuple(actions[a] for a in self.possible_agents))
        each = np.broadcast_to(np.asarray(rewards, np.float64), len(self.possible_agents))
        terminated, truncated = bool(np.all(terminated)), bool(np.all(truncated))
        if terminated or truncated:
            self.agents = []
        names = self.possible_agents
        return (
            dict(zip(names, observations, strict=True)),
            dict(zip(names, map(float, each), strict=True)),
            dict.fromkeys(names, terminated),
            dict.fromkeys(names, truncated),
            {},
        )

    def render(self) -> Any:
        """As the environment underneath."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment underneath."""
        self.env.close()  # type: ignore[no-untyped-call]

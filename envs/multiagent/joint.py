"""Several agents as one environment of joint steps; see ``oneiros.envs.multiagent.contract``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from oneiros.envs.contract import InvalidOption, Snapshot, UnsupportedSpace
from oneiros.envs.multiagent.aspects import AspectSpec
from oneiros.envs.multiagent.contract import AGENT, TRAINING, AnySpace, Declares, KnowsOracle, Players
from oneiros.envs.multiagent.players import ParallelPlayers, TurnPlayers

MASK = "action_mask"
BARE = "obs"
OWN = frozenset({"alive", "turn"})
"""Entries of an agent's observation that the joint step adds."""

Observation = dict[str, dict[str, dict[str, Any]]]


class JointEnv(gymnasium.Env[Observation, dict[str, Any]]):
    """One environment of joint steps over ``players``.

    ``aspects`` limits agents to some aspects of what they see: by agent, the spec that makes their observations.
    Raises ``UnsupportedSpace`` if an agent's observation has an entry of a name that joint steps use themselves.
    """

    def __init__(self, players: Players, aspects: Mapping[str, AspectSpec] | None = None) -> None:
        self.players = players
        self.aspects = dict(aspects or {})
        self.render_mode = getattr(players.env, "render_mode", None)
        self.metadata = dict(getattr(players.env, "metadata", {}))
        agents: dict[str, AnySpace] = {}
        training: dict[str, spaces.Dict] = {}
        self._entries = {name: self._own_entries(name) for name in players.names}
        for name, entries in self._entries.items():
            own: dict[str, AnySpace] = {**entries, "alive": spaces.Discrete(2)}
            if players.turn_based:
                own["turn"] = spaces.Discrete(2)
            agents[name] = spaces.Dict(own)
            training[name] = self._training_space(name)
        self.observation_space = spaces.Dict({AGENT: spaces.Dict(agents), TRAINING: spaces.Dict(dict(training))})
        self.action_space = spaces.Dict(dict(players.action_spaces))
        self._blank = {
            name: {key: blank(space) for key, space in entries.items()} for name, entries in self._entries.items()
        }
        self._blank_training = {name: _blank_nested(training[name]) for name in players.names}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        # PettingZoo seeds nothing where it is given nothing; episodes after the first go on from the first's seed.
        if seed is None and self.np_random is not None:
            seed = int(self.np_random.integers(2**31))
        self.players.reset(seed, options)
        return self._observe({}), {}

    def step(self, action: dict[str, Any]) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Execute the actions that count; the reward is the mean of the agents' own."""
        rewards = self.players.step(action)
        terminated, truncated = self.players.ended()
        total = sum(rewards.get(name, 0.0) for name in self.players.names)
        return self._observe(rewards), total / len(self.players.names), terminated, truncated, {}

    def render(self) -> Any:
        """As the environment underneath."""
        return self.players.env.render()

    def close(self) -> None:
        """Close the environment underneath."""
        self.players.env.close()

    def _own_entries(self, name: str) -> dict[str, AnySpace]:
        """The agent's own observation as entries."""
        space = self.players.observation_spaces[name]
        if name in self.aspects:
            mask = space.spaces.get(MASK) if isinstance(space, spaces.Dict) else None
            chosen: dict[str, AnySpace] = dict(self.aspects[name].space(space).spaces)
            space = spaces.Dict(chosen | ({MASK: mask} if mask is not None else {}))
        entries: dict[str, AnySpace] = dict(space.spaces) if isinstance(space, spaces.Dict) else {BARE: space}
        if taken := OWN & entries.keys():
            raise UnsupportedSpace(f"{name} observes an entry {min(taken)!r}, a name that joint steps use: rename it")
        if "/" in name:
            raise UnsupportedSpace(f"the agent {name!r} has a slash in its name, which separates entries: rename it")
        return entries

    def _training_space(self, name: str) -> spaces.Dict:
        env = self.players.env
        own: dict[str, AnySpace] = {
            "reward": spaces.Box(-np.inf, np.inf, (), np.float32),
            "terminal": spaces.Discrete(2),
        }
        if isinstance(env, Declares) and env.belief_spaces.get(name):
            own["belief"] = spaces.Dict(dict(env.belief_spaces[name]))
        if isinstance(env, KnowsOracle) and env.oracle_spaces.get(name):
            own["oracle"] = spaces.Dict(dict(env.oracle_spaces[name]))
        return spaces.Dict(own)

    def _observe(self, rewards: Mapping[str, float]) -> Observation:
        agents, training = {}, {}
        for name in self.players.names:
            there = name in self.players.observations
            agents[name] = self._see(name, there)
            training[name] = self._know(name, there, rewards.get(name, 0.0))
        return {AGENT: agents, TRAINING: training}

    def _see(self, name: str, there: bool) -> dict[str, Any]:
        seen = dict(self._blank[name])
        if there:
            raw = self.players.observations[name]
            if name in self.aspects:
                seen |= self.aspects[name].construct(raw)
                if MASK in seen:
                    seen[MASK] = raw[MASK]
            else:
                seen |= raw if isinstance(raw, Mapping) else {BARE: raw}
        own = {key: _cast(value, self._entries[name][key]) for key, value in seen.items()}
        own["alive"] = np.int64(there)
        if self.players.turn_based:
            own["turn"] = np.int64(self.players.turn(name))
        if MASK in own and not np.any(own[MASK]):
            # Whoever cannot choose now has nothing to be kept from; its action is not executed.
            own[MASK] = np.ones_like(own[MASK])
        return own

    def _know(self, name: str, there: bool, reward: float) -> dict[str, Any]:
        known: dict[str, Any] = {
            **self._blank_training[name],
            "reward": np.array(reward, np.float32),
            "terminal": np.int64(name in self.players.terminal),
        }
        env = self.players.env
        if there and "belief" in known:
            known["belief"] = {k: np.asarray(v, np.int64)[()] for k, v in env.beliefs(name).items()}
        if there and "oracle" in known:
            known["oracle"] = {k: np.asarray(v, np.float32) for k, v in env.oracles(name).items()}
        return known


class ResumableJointEnv(JointEnv):
    """Joint steps over an environment that can say its state, so that a resumed run goes on inside its episode."""

    def get_state(self) -> Mapping[str, Any]:
        """The state of the environment underneath, and of the generator that seeds its episodes."""
        return {"env": self.players.env.get_state(), "rng": dict(self.np_random.bit_generator.state)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        self.players.env.set_state(state["env"])
        self.np_random.bit_generator.state = dict(state["rng"])


def is_multiagent(env: Any) -> bool:
    """Whether ``env`` is a PettingZoo ``ParallelEnv`` or ``AECEnv``."""
    return not isinstance(env, gymnasium.Env) and hasattr(env, "possible_agents")


def joint(env: Any, aspects: Mapping[str, Sequence[str]] | None = None) -> JointEnv:
    """Turn a PettingZoo environment into one of joint steps.

    ``aspects`` limits agents to the aspects of these names, out of those that the environment declares in its
    attribute ``aspects`` (by agent, an ``AspectSpec``). Raises ``InvalidOption``.
    """
    players: Players = TurnPlayers(env) if hasattr(env, "agent_selection") or _is_aec(env) else ParallelPlayers(env)
    declared: Mapping[str, AspectSpec] = getattr(env, "aspects", {})
    chosen = {}
    for name, names in (aspects or {}).items():
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise InvalidOption(f"no aspects are declared for the agent {name!r}; there are aspects of: {known}")
        chosen[name] = declared[name].only(name, names)
    kind = ResumableJointEnv if isinstance(env, Snapshot) else JointEnv
    return kind(players, chosen)


def _is_aec(env: Any) -> bool:
    return hasattr(env, "agent_iter")


def blank(space: AnySpace) -> Any:
    """The value of an agent that is not there: zeros, or what comes nearest to them in ``space``."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        return np.int64(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return np.array(space.start, np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, np.int8)
    if isinstance(space, spaces.Dict):
        return _blank_nested(space)
    if isinstance(space, spaces.Tuple):
        return tuple(blank(part) for part in space.spaces)
    raise UnsupportedSpace(f"an agent observes {space}, which has no blank value for when it is not there")


def _blank_nested(space: spaces.Dict) -> dict[str, Any]:
    return {key: blank(part) for key, part in space.spaces.items()}


def _cast(value: Any, space: AnySpace) -> Any:
    """PettingZoo environments are not strict about dtypes; buffers and checks are."""
    if isinstance(space, spaces.Dict):
        return {key: _cast(value[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_cast(part, inner) for part, inner in zip(value, space.spaces, strict=True))
    if isinstance(space, spaces.Discrete):
        return np.int64(value)
    return np.asarray(value, dtype=space.dtype)

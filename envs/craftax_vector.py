"""Craftax on JAX: all environments in one compiled step; no copy of the program for each of them, and none of the data.

A new episode begins in the step after the last one of the old (next-step autoreset). So the worlds that a step needs
are known before it, and only those are made: in batches of a fixed size, which nearly always is one or none, where an
automatic reset would make a world for every environment in every step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Array = NDArray[Any]
Info = dict[str, Any]
LOG = "log_achievement_"
NAMES = {False: "Craftax-Symbolic-v1", True: "Craftax-Pixels-v1"}
LONGEST = 10_000
"""Steps after which the benchmark truncates an episode."""
MOST_AT_ONCE = 8
"""How many worlds are made together, and thrown away where fewer are needed."""


class CraftaxVector(VectorEnv[Any, Any, Any]):
    """``num_envs`` games of Craftax: 43 actions; ``(N, 8268)`` float32 numbers, or ``(N, height, width, 3)`` bytes.

    What each does depends on its own seed alone, not on how many there are. An episode terminates when the player
    dies or has beaten the game, and is truncated after ``length`` steps. Its last info, in ``infos["each"]``, holds
    ``log_achievement_<name>``, 1 for each of the achievements that was unlocked in it.
    """

    def __init__(
        self,
        pixels: bool,
        num_envs: int,
        *,
        size: tuple[int, int] | None = None,
        length: int = LONGEST,
        seeds: Sequence[int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        """``size`` scales the pictures of 130 x 110; ``seeds`` are those of the first reset that is given none."""
        self._game = _Game(pixels, size, length)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = self._game.observation_space
        self.single_action_space = spaces.Discrete(self._game.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._seeds = seeds
        self._ended = np.zeros(num_envs, np.bool_)
        self._keys: Any = None
        self._states: Any = None
        self._pictures: Any = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Info | None = None
    ) -> tuple[Array, Info]:
        """Begin an episode in each, or in those that are true in ``options["reset_mask"]``, ``(N,)`` bool."""
        mask = (options or {}).get("reset_mask")
        chosen = np.ones(self.num_envs, np.bool_) if mask is None or self._states is None else np.asarray(mask, bool)
        seeds = self._take_seeds(seed)
        if self._states is None:
            self._keys, self._states, self._pictures = self._game.blank(self.num_envs)
        given = np.array([number for number, one in enumerate(seeds) if one is not None and chosen[number]], np.int64)
        if len(given):
            self._keys = self._game.seeded(self._keys, given, [int(seeds[number] or 0) for number in given])
        self._renew(np.flatnonzero(chosen))
        self._ended[chosen] = False
        return np.array(self._pictures), {"each": [{} for _ in range(self.num_envs)]}

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, Info]:
        """Act in each environment, or begin its next episode where the last one is over."""
        if self._states is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset")
        beginning = self._ended.copy()
        acted = self._game.advance(self._keys, self._states, np.asarray(actions, np.int32))
        self._keys, self._states, self._pictures, rewards, terminated, truncated = acted
        rewards, terminated, truncated = (np.array(part) for part in (rewards, terminated, truncated))
        if beginning.any():
            self._renew(np.flatnonzero(beginning))
            rewards[beginning] = 0
            terminated[beginning] = truncated[beginning] = False
        self._ended = terminated | truncated
        each: list[Info] = [{} for _ in range(self.num_envs)]
        if self._ended.any():
            unlocked = np.asarray(self._states.achievements)
            for number in np.flatnonzero(self._ended):
                row = zip(self._game.achievements, unlocked[number], strict=True)
                each[number] = {LOG + name: float(value) for name, value in row}
        return np.array(self._pictures), rewards, terminated, truncated, {"each": each}

    def render(self) -> Any:
        """The last pictures, with ``render_mode="rgb_array"``."""
        return tuple(np.asarray(self._pictures)) if self.render_mode == "rgb_array" else None

    def _renew(self, numbers: NDArray[np.int64]) -> None:
        """Put new worlds where the environments of these numbers are; places beyond the last are dropped."""
        batch = min(MOST_AT_ONCE, self.num_envs)
        for start in range(0, len(numbers), batch):
            places = np.full(batch, self.num_envs, np.int64)
            part = numbers[start : start + batch]
            places[: len(part)] = part
            renewed = self._game.renew(self._keys, self._states, self._pictures, places)
            self._keys, self._states, self._pictures = renewed

    def _take_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if isinstance(seed, int):
            return [seed + number for number in range(self.num_envs)]
        seeds, self._seeds = (self._seeds if seed is None else seed), None
        if seeds is not None:
            return seeds
        if self._states is None:
            return [int(state) for state in np.random.SeedSequence().generate_state(self.num_envs)]
        return [None] * self.num_envs


class Single(gymnasium.Env[Array, np.int64]):
    """One of them, where one is wanted."""

    def __init__(self, vector: CraftaxVector) -> None:
        self._vector = vector
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.render_mode = vector.render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Array, Info]:
        """Generate a world; worlds follow from the last seed that was given and how many came since."""
        super().reset(seed=seed)
        pictures, infos = self._vector.reset(seed=None if seed is None else [seed])
        return np.array(pictures[0]), infos["each"][0]

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, Info]:
        """Act for one step."""
        pictures, rewards, terminated, truncated, infos = self._vector.step(np.array([action]))
        return np.array(pictures[0]), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), infos["each"][0]

    def render(self) -> Any:
        """The last picture, with ``render_mode="rgb_array"``."""
        rendered = self._vector.render()
        return None if rendered is None else rendered[0]


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "oneiros" / "craftax"


class _Game:
    """Craftax's rules, compiled for a batch."""

    def __init__(self, pixels: bool, size: tuple[int, int] | None, length: int) -> None:
        # Where there is a GPU, what learns needs its memory, too.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        import jax

        if jax.config.jax_compilation_cache_dir is None:
            # Compiling takes a minute or more, and gives the same every time.
            jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
        from craftax.craftax.constants import Achievement
        from craftax.craftax_env import make_craftax_env_from_name

        self._jax = jax
        self._env = make_craftax_env_from_name(NAMES[pixels], auto_reset=False)
        self._params = self._env.default_params.replace(max_timesteps=length)
        self._pixels, self._size = pixels, size
        self.actions = int(self._env.num_actions)
        self.achievements = [one.name.lower() for one in sorted(Achievement, key=lambda one: int(one.value))]
        self.renew = jax.jit(self._renew, donate_argnums=(0, 1))
        self.advance = jax.jit(self._advance, donate_argnums=(0, 1))

    @cached_property
    def observation_space(self) -> spaces.Box:
        """Of one environment."""
        shape = self._jax.eval_shape(self._begin, self._jax.random.PRNGKey(0))[2].shape
        if self._pixels:
            return spaces.Box(0, 255, shape, np.uint8)
        return spaces.Box(-np.inf, np.inf, shape, np.float32)

    def blank(self, num_envs: int) -> tuple[Any, Any, Any]:
        """Keys, states and observations to put worlds into."""
        jnp, key = self._jax.numpy, self._jax.random.PRNGKey(0)
        shapes = self._jax.eval_shape(self._begin, key)
        return self._jax.tree.map(lambda one: jnp.zeros((num_envs, *one.shape), one.dtype), shapes)  # type: ignore[no-any-return]

    def seeded(self, keys: Any, numbers: NDArray[np.int64], seeds: Sequence[int]) -> Any:
        """The keys with those of these numbers made from seeds."""
        fresh = np.stack([np.asarray(self._jax.random.PRNGKey(seed & 0xFFFFFFFF)) for seed in seeds])
        return keys.at[numbers].set(fresh)

    def _begin(self, key: Any) -> tuple[Any, Any, Any]:
        key, own = self._jax.random.split(key)
        observation, state = self._env.reset_env(own, self._params)
        return key, state, self._look(observation)

    def _renew(self, keys: Any, states: Any, observations: Any, places: Any) -> tuple[Any, Any, Any]:
        tree = self._jax.tree
        begun = self._jax.vmap(self._begin)(keys.at[places].get(mode="clip"))
        put = partial(tree.map, lambda old, new: old.at[places].set(new, mode="drop"))
        return put((keys, states, observations), begun)  # type: ignore[no-any-return]

    def _advance(self, keys: Any, states: Any, actions: Any) -> tuple[Any, ...]:
        return self._jax.vmap(self._act)(keys, states, actions)  # type: ignore[no-any-return]

    def _act(self, key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        key, own = self._jax.random.split(key)
        observation, state, reward, done, _ = self._env.step_env(own, state, action, self._params)
        truncated = done & (state.timestep >= self._params.max_timesteps) & (state.player_health > 0)
        return key, state, self._look(observation), reward, done & ~truncated, truncated

    def _look(self, observation: Any) -> Any:
        if not self._pixels:
            return observation
        if self._size is not None:
            shape = (*self._size, observation.shape[-1])
            observation = self._jax.image.resize(observation, shape, "linear")
        return (observation * 255.0 + 0.5).astype("uint8")

"""The Behaviour Suite (Osband and others, 2019): 23 experiments of some 20 settings each: ``bsuite/catch/0``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat
from urllib.error import URLError

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from oneiros.envs.contract import InvalidOption, MissingDependency, Requirement, UnknownEnvironment
from oneiros.envs.options import GENERIC, AnyEnv

EXPERIMENTS: Mapping[str, int] = {
    **dict.fromkeys(("bandit", "bandit_noise", "bandit_scale", "cartpole", "cartpole_noise", "cartpole_scale"), 20),
    **dict.fromkeys(("cartpole_swingup", "catch", "catch_noise", "catch_scale", "discounting_chain"), 20),
    **dict.fromkeys(("deep_sea", "deep_sea_stochastic"), 21),
    **dict.fromkeys(("memory_len", "umbrella_distract", "umbrella_length"), 23),
    "memory_size": 17,
    **dict.fromkeys(("mnist", "mnist_noise", "mnist_scale", "mountain_car", "mountain_car_noise"), 20),
    "mountain_car_scale": 20,
}
"""How many settings each experiment has; they are numbered from 0."""

Vector = NDArray[np.float32]


class Experiment(gymnasium.Env[Vector, np.int64]):
    """One setting, behind Gymnasium's interface: observations are flat float32 vectors.

    What bsuite scores by (``total_regret`` and the like, summed since the environment was made) is in each episode's
    last info under ``log_<name>``. An experiment runs for ``num_episodes``; nothing stops a longer run.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self.num_episodes: int = env.bsuite_num_episodes
        shape = env.observation_spec().shape
        self.observation_space = spaces.Box(-np.inf, np.inf, (int(np.prod(shape)),), np.float32)
        self.action_space = spaces.Discrete(env.action_spec().num_values)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """Begin an episode. The settings have seeds of their own, which a given one replaces."""
        super().reset(seed=seed)
        if seed is not None:
            random = np.random.RandomState(seed)
            for layer in self._layers():
                if hasattr(layer, "_rng"):
                    layer._rng = random
        return self._observe(self._env.reset()), {}

    def step(self, action: np.int64) -> tuple[Vector, SupportsFloat, bool, bool, dict[str, Any]]:
        """Advance one step."""
        timestep = self._env.step(int(action))
        last = timestep.last()
        info = {f"log_{key}": float(value) for key, value in self._env.bsuite_info().items()} if last else {}
        terminated = last and timestep.discount == 0
        return self._observe(timestep), timestep.reward, terminated, last and not terminated, info

    def _layers(self) -> list[Any]:
        layers = [self._env]
        while hasattr(layers[-1], "_env"):
            layers.append(layers[-1]._env)
        return layers

    @staticmethod
    def _observe(timestep: Any) -> Vector:
        return np.asarray(timestep.observation, np.float32).reshape(-1)


class BehaviourSuite:
    """``experiment/number``."""

    name = "bsuite"
    description = "the Behaviour Suite's experiments, from flat vectors"
    requirement = Requirement("pip install 'oneiros[bsuite]'", ("bsuite",))

    def tasks(self) -> Sequence[str]:
        """All settings of all experiments."""
        return [f"{name}/{number}" for name, count in EXPERIMENTS.items() for number in range(count)]

    def make(self, task: str, **unknown: Any) -> AnyEnv:
        """Build one setting."""
        if task not in self.tasks():
            raise UnknownEnvironment()
        if unknown:
            raise InvalidOption(f"bsuite/{task} takes no option {min(unknown)!r}: there are {', '.join(GENERIC)}")
        import bsuite  # only where the suite's requirement is there

        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints each name that it loads
                return Experiment(bsuite.load_from_id(task))
        except URLError as error:
            raise MissingDependency(
                f"bsuite/{task} downloads the MNIST digits, which failed: {error.reason}"
            ) from error


SUITE = BehaviourSuite()

"""An environment of nested spaces that it draws its observations from."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
        "pair": spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,), np.float64)]),
        "bits": spaces.MultiBinary(3),
    }
)


class Sampler(gymnasium.Env[Any, Any]):
    """Observations drawn from its space; Dict actions come back in the info."""

    observation_space = NESTED
    action_space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,), np.float32)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.t = 0
        return self.observation_space.sample(), {"options": str(options)}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observation_space.sample(), float(action["b"][0]), self.t > 5, False, {"a": int(action["a"])}


def sampler() -> Sampler:
    env = Sampler()
    env.observation_space = deepcopy(NESTED)
    return env

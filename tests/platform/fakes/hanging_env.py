"""An environment that hangs once when it is told to, by a file that it takes away first."""

import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class HangingEnv(gymnasium.Env):
    def __init__(self, env_config):
        self.flag = Path(env_config["flag"])
        self.observation_space = spaces.Box(0, 10, (1,))
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        try:
            self.flag.unlink()
        except FileNotFoundError:
            pass
        else:
            time.sleep(3600)
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, self.steps == 10, False, {}

"""The real agent learns, within a minute: with a wrong gradient or a misaligned action it does not.

The environment shows a cue and hides it again. While it is shown the action must differ from it, one step later the
action must match it. What an action paid comes one row later still. A policy without memory, or one whose actions are
recorded a row early or late, earns 0 on average.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters
from torch import Tensor

ENVS, ACTIONS = 8, 2
CUE, EMPTY, OVER = range(3)
HIDDEN = ACTIONS
SPACE = {"obs": spaces.MultiDiscrete([3, ACTIONS + 1, ACTIONS + 1])}


class Cues:
    """``ENVS`` copies of an episode of two actions: a cue is shown, then an empty screen, then how it ended.

    The first action must differ from the cue and the second must match it; each earns 0.5 if right and costs as much
    if wrong, so that chance and every constant earn 0. Screens show the action before them, the last also the cue.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.cue = self.rng.integers(ACTIONS, size=ENVS)
        self.phase = np.full(ENVS, CUE)
        self.before = np.full(ENVS, HIDDEN)

    def row(self, reward: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        over = self.phase == OVER
        cue = np.where(self.phase == EMPTY, HIDDEN, self.cue)
        return {
            "obs": np.stack([self.phase, cue, self.before], -1).astype(np.int32),
            "reward": reward.astype(np.float32),
            "is_first": first,
            "is_last": over,
            "is_terminal": over,
        }

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and ``is_first``; an episode that is over begins anew, whatever the action."""
        over = self.phase == OVER
        right = (action == self.cue) == (self.phase == EMPTY)
        self.phase = (self.phase + 1) % 3
        self.before = np.where(over, HIDDEN, action)
        self.cue = np.where(over, self.rng.integers(ACTIONS, size=ENVS), self.cue)
        return np.where(over, 0.0, np.where(right, 0.5, -0.5)), over


CONFIG = Hyperparameters(
    size="1m",
    deter=64,
    hidden=32,
    groups=8,
    classes=4,
    units=32,
    batch_size=16,
    batch_length=8,
    imagination_length=3,
    learning_rate=2e-3,
    warmup=20,
    entropy=3e-2,
    horizon=10,
    precision="float32",
    compile="off",
)
ENOUGH, RECENT = 0.9, 200
"""The mean return of so many episodes at which training stops; the actor's 1 % of uniform costs 0.01 of it."""


def as_tensors(rows: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in rows.items()}


def sequences(history: list[dict[str, np.ndarray]], rng: np.random.Generator) -> dict[str, Tensor]:
    """A batch of uniformly drawn windows: the least that can be called a replay."""
    length = CONFIG.batch_length + CONFIG.replay_context
    starts = rng.integers(len(history) - length + 1, size=CONFIG.batch_size)
    envs = rng.integers(ENVS, size=CONFIG.batch_size)
    windows = [(e, history[s : s + length]) for s, e in zip(starts, envs, strict=True)]
    return as_tensors({k: np.stack([[row[k][e] for row in window] for e, window in windows]) for k in history[0]})


def mean_return_of_training(config: Hyperparameters, seed: int, steps: int = 1200) -> float:
    """Act, record and update once a step; the mean return of recent episodes when that is enough, or time is up."""
    agent = DreamerV3(config, SPACE, {"action": spaces.Discrete(ACTIONS)}, seed=seed)
    env, rng = Cues(seed), np.random.default_rng(seed)
    history: list[dict[str, np.ndarray]] = []
    returns: deque[float] = deque(maxlen=RECENT)
    state = agent.initial_state(ENVS)
    row, earned = env.row(np.zeros(ENVS), np.ones(ENVS, bool)), np.zeros(ENVS)
    for _ in range(steps):
        seen = as_tensors(row)
        action, state, latents = agent.act({"obs": seen["obs"]}, seen["is_first"], state)
        executed = np.where(row["is_last"], 0, action["action"].numpy())
        history.append(row | {"action": executed} | {f"latent/{k}": v.numpy() for k, v in latents.items()})
        row = env.row(*env.step(executed))
        earned = np.where(row["is_first"], 0, earned + row["reward"])
        returns.extend(earned[row["is_last"]].tolist())
        if len(returns) == RECENT and np.mean(returns) >= ENOUGH:
            break
        if len(history) > 32:
            agent.update(sequences(history, rng))
    return float(np.mean(returns))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns_to_act_on_what_it_remembers(precision: str) -> None:
    config = CONFIG.model_copy(update={"precision": precision})
    assert mean_return_of_training(config, seed=1) >= ENOUGH

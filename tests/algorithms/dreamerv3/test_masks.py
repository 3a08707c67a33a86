"""Imagination keeps to the rules: the mask head learns which actions are legal where, and imagined actions obey it.

The toy is a ring of places. From a place one may stay or go on to the next one, so the legal actions change with every
step; what is legal in imagination follows from the actions imagined before.
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3, Hyperparameters
from torch import Tensor

PLACES, ENVS, LENGTH = 4, 16, 9
OBS = {"place": spaces.Discrete(PLACES), "action_mask": spaces.MultiBinary(PLACES)}
CONFIG = Hyperparameters(
    size="1m",
    deter=64,
    hidden=32,
    groups=8,
    classes=4,
    units=32,
    batch_size=ENVS,
    batch_length=LENGTH - 1,
    imagination_length=15,
    learning_rate=2e-3,
    warmup=20,
    precision="float32",
    compile="off",
)
ALLOWED = 0.01


def legal(place: np.ndarray) -> np.ndarray:
    """Masks ``(N, PLACES)``: stay, or go on to the next place."""
    places = np.arange(PLACES)
    return (places == place[:, None]) | (places == (place[:, None] + 1) % PLACES)


def walks(agent: DreamerV3, rng: np.random.Generator) -> tuple[dict[str, Tensor], np.ndarray]:
    """A batch of random legal walks, and the place after the last action of each."""
    place = rng.integers(PLACES, size=ENVS)
    rows: dict[str, list[np.ndarray]] = {key: [] for key in ("place", "action_mask", "action")}
    for _ in range(LENGTH):
        action = (place + rng.integers(2, size=ENVS)) % PLACES
        for key, value in (("place", place), ("action_mask", legal(place)), ("action", action)):
            rows[key].append(value)
        place = action
    batch = {key: torch.from_numpy(np.stack(values, 1)) for key, values in rows.items()}
    flags = {key: torch.zeros(ENVS, LENGTH, dtype=torch.bool) for key in ("is_first", "is_last", "is_terminal")}
    flags["is_first"][:, 0] = True
    rssm = agent.model.rssm
    latents = {
        "latent/deter": torch.zeros(ENVS, LENGTH, rssm.deter, dtype=torch.float16),
        "latent/stoch": torch.zeros(ENVS, LENGTH, rssm.groups, dtype=torch.uint8),
        "latent_valid": torch.zeros(ENVS, dtype=torch.bool),
    }
    return batch | flags | latents | {"reward": torch.zeros(ENVS, LENGTH)}, rows["place"][-1]


def illegal_share(agent: DreamerV3, rng: np.random.Generator, batches: int = 8) -> float:
    """The share of imagined actions that the ring forbids, after walks that the agent has watched."""
    wrong = total = 0
    for _ in range(batches):
        batch, place = walks(agent, rng)
        before = torch.cat([torch.zeros(ENVS, 1, dtype=torch.int64), batch["action"][:, :-1]], 1)
        obs = {key: batch[key] for key in OBS}
        state, _ = agent.model.observe(obs, {"action": before}, batch["is_first"], agent.model.initial_state(ENVS))
        _, actions, _ = agent.imagine(torch.cat([state["deter"], state["stoch"]], -1))
        for action in actions.argmax(-1).numpy():
            wrong += int((~legal(place)[np.arange(ENVS), action]).sum())
            total += ENVS
            place = np.where(legal(place)[np.arange(ENVS), action], action, place)
    return wrong / total


def test_less_than_one_imagined_action_in_a_hundred_is_illegal() -> None:
    agent = DreamerV3(CONFIG, OBS, {"action": spaces.Discrete(PLACES)}, seed=0)
    rng = np.random.default_rng(0)
    # Half of all actions are illegal somewhere: before anything is learnt, imagination does not know which.
    assert illegal_share(agent, rng, batches=2) > 0.2
    for _ in range(20):
        for _ in range(25):
            agent.update(walks(agent, rng)[0])
        if illegal_share(agent, rng, batches=2) < ALLOWED / 2:
            break
    assert illegal_share(agent, rng) < ALLOWED

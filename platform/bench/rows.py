"""Made-up experience to fill a replay with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oneiros.algorithms.contract import Field
from oneiros.platform.bench.kinds import Kind
from oneiros.platform.replay import Replay
from oneiros.platform.rollout import Chunk

EPISODE = 500
"""Steps of an episode, the row of its last observation included."""
STREAMS = 8


def synthetic_chunk(
    kind: Kind, fields: Mapping[str, Field], streams: int, steps: int, generator: np.random.Generator, start: int = 0
) -> Chunk:
    """``streams`` x ``steps`` random rows of episodes that end by turns; ``start``: rows that came before them."""
    lead = (streams, steps)
    rows: dict[str, NDArray[Any]] = {}
    for key, field in fields.items():
        shape = (*lead, *field.shape)
        if field.dtype == np.uint8 and not key.startswith("latent/"):
            rows[key] = generator.integers(0, 256, shape, dtype=np.uint8)
        elif key.startswith("latent/"):
            rows[key] = np.zeros(shape, field.dtype)
        elif key == "action":
            drawn = [kind.action_space.sample() for _ in range(min(64, streams * steps))]
            rows[key] = np.resize(np.asarray(drawn, field.dtype), shape)
        else:
            rows[key] = generator.standard_normal(shape).astype(field.dtype)
    at = (start + np.arange(steps)[None] + np.arange(streams)[:, None] * (EPISODE // streams)) % EPISODE
    rows["is_first"], rows["is_last"] = at == 0, at == EPISODE - 1
    rows["is_terminal"] = rows["is_last"] & (np.arange(streams)[:, None] % 2 == 0)
    rows["action"][rows["is_last"]] = 0
    rows["reward"][rows["is_first"]] = 0
    env_steps = int((~rows["is_last"]).sum())
    return Chunk(rows, np.arange(streams, dtype=np.int64), env_steps, 0)


def fill(replay: Replay, kind: Kind, fields: Mapping[str, Field], rows: int, seed: int = 0) -> None:
    """Add at least ``rows`` rows."""
    generator = np.random.default_rng(seed)
    kind.action_space.seed(seed)
    steps = min(256, -(-rows // STREAMS))
    for start in range(0, -(-rows // STREAMS), steps):
        replay.add(synthetic_chunk(kind, fields, STREAMS, steps, generator, start))

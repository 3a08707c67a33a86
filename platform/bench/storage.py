"""How fast a replay takes rows in and gives batches out, and how many bytes a row takes at each model size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from oneiros.algorithms.contract import Field
from oneiros.algorithms.dreamerv3.config import SIZES, Hyperparameters
from oneiros.platform.bench.durations import Durations, repeat
from oneiros.platform.bench.kinds import Kind, find_kind
from oneiros.platform.bench.learner import checked_device
from oneiros.platform.bench.machine import OtherLoad, describe
from oneiros.platform.bench.rows import STREAMS, synthetic_chunk
from oneiros.platform.config import ConfigError
from oneiros.platform.config.errors import unknown
from oneiros.platform.replay import Replay
from oneiros.platform.replay.blocks import columns_of
from oneiros.platform.replay.chunks import Schema
from oneiros.platform.replay.rows import LATENT, row_bytes
from oneiros.platform.replay.staging import Stager

STEPS = 32
"""Steps a chunk that is inserted holds of each stream."""


def replay_fields(kind: Kind, size: str) -> dict[str, Field]:
    """What a row holds for a DreamerV3 of this size; as its agent says, without building one."""
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    groups = Hyperparameters.model_fields["groups"].default
    action_dtype = np.float32 if kind.name == "state" else np.int64
    flags = {flag: Field((), np.dtype(bool)) for flag in ("is_first", "is_last", "is_terminal")}
    return {
        "obs": Field(kind.observation_space.shape, np.dtype(kind.observation_space.dtype)),
        "action": Field(kind.action_space.shape or (), np.dtype(action_dtype)),
        "reward": Field((), np.dtype(np.float32)),
        **flags,
        "latent/deter": Field((SIZES[size]["deter"],), np.dtype(np.float16)),
        "latent/stoch": Field((groups,), np.dtype(np.uint8)),
    }


def bytes_per_row(kind: Kind, strides: tuple[int, ...]) -> list[dict[str, Any]]:
    """Bytes of one row for every size, and for latents of every k-th row, k in ``strides``."""
    table = []
    for size in SIZES:
        fields = replay_fields(kind, size)
        for stride in strides:
            latents = {key: field for key, field in fields.items() if key.startswith(LATENT)}
            others = {key: field for key, field in fields.items() if key not in latents}
            sizes = row_bytes(Schema(columns_of(others), columns_of(latents), stride))
            total = sum(sizes.values())
            table.append(
                {"size": size, "latent_stride": stride, **sizes, "total": total, "times_obs": total / sizes["obs"]}
            )
    return table


def filled_replay(
    obs: str,
    size: str,
    rows: int,
    batch: int,
    length: int,
    *,
    times: int = 1,
    latent_stride: int = 1,
    directory: Path | None = None,
) -> tuple[Replay, Durations]:
    """A replay of ``rows`` rows into which so many were put ``times`` over, and what its chunks took to insert.

    Raises ``ConfigError``.
    """
    kind = find_kind(obs)
    if rows < 4 * (length + 1) * STREAMS:
        raise ConfigError(f"rows is {rows}; windows of {length + 1} rows need at least {4 * (length + 1) * STREAMS}.")
    fields = replay_fields(kind, size)
    replay = Replay(
        fields,
        capacity=rows,
        length=length,
        batch=batch,
        directory=directory,
        online=False,
        latent_stride=latent_stride,
    )
    chunk = synthetic_chunk(kind, fields, STREAMS, STEPS, np.random.default_rng(0))
    inserting = Durations()
    for _ in range(-(-times * rows // (STREAMS * STEPS))):
        inserting.time(lambda: replay.add(chunk))
    return replay, inserting


def measure_replay(
    obs: str,
    *,
    size: str = "12m",
    rows: int = 20_000,
    batch: int = 16,
    length: int = 64,
    batches: int = 100,
    latent_stride: int = 1,
    directory: Path | None = None,
    device: str = "cpu",
    strides: tuple[int, ...] = (1, 8, 16),
) -> dict[str, Any]:
    """Seconds to sample and stage ``batch`` x (``length`` + 1) rows, to write latents back, and rows inserted a second.

    ``directory`` maps the replay from disk. Inserting goes on until ``rows`` rows were evicted once over. Raises
    ``ConfigError``.
    """
    kind, target, fields = find_kind(obs), checked_device(device), replay_fields(find_kind(obs), size)
    with OtherLoad() as others:
        replay, inserting = filled_replay(
            obs, size, rows, batch, length, times=2, latent_stride=latent_stride, directory=directory
        )
        stager = Stager(replay, target, threaded=False)
        row_id = stager.next().row_id
        staging = repeat(stager.next, batches)
        latents = {
            key: np.zeros((batch, length, *field.shape), field.dtype)
            for key, field in fields.items()
            if key.startswith(LATENT)
        }
        writing = repeat(lambda: replay.write_back(row_id[:, replay.context :], latents), batches)
    stager.close()
    stats = replay.stats()
    replay.close()
    inserted = 2 * rows / sum(inserting.wall)
    return {
        **staging.summary(),
        "batches": batches,
        "write_back": writing.summary(),
        "insert_rows_per_s": inserted,
        "insert_rows_per_cpu_s": 2 * rows / max(sum(inserting.cpu), 1e-9),
        "rows": int(stats["rows"]),
        "where": "disk" if directory else "memory",
        "batch_size": batch,
        "batch_length": length,
        "latent_stride": latent_stride,
        "size": size,
        "obs": obs,
        "row_bytes": stats["row_bytes"],
        "row_bytes_per_obs_byte": stats["row_bytes"] / stats["row_bytes_obs"],
        "row_bytes_by_size": bytes_per_row(kind, strides),
        "other_load": others.share,
        **describe(target),
    }

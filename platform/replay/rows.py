"""What comes in, checked against what a replay stores: one sentence names the first entry that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from oneiros.algorithms.contract import LATENT_VALID
from oneiros.platform.replay.blocks import Array
from oneiros.platform.replay.chunks import ReplayMismatch, Schema
from oneiros.platform.replay.windows import Ids

LATENT = "latent/"
NOT_OBSERVED = ("reward", "is_first", "is_last", "is_terminal", "action")


def checked_rows(schema: Schema, rows: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[int, int]]:
    """``rows`` as arrays ``(N, T, ...)`` that can be stored, and ``(N, T)``; they may lack all latents.

    Raises `ReplayMismatch`.
    """
    columns = [*schema.rows]
    if any(name in rows for name, _, _ in schema.latents):
        columns += schema.latents
        if LATENT_VALID in rows:
            columns.append((LATENT_VALID, np.dtype(bool).name, ()))
    unknown = sorted(rows.keys() - {name for name, _, _ in columns})
    if unknown:
        known = ", ".join(name for name, _, _ in columns)
        raise ReplayMismatch(f"Rows have an entry {unknown[0]!r} that replay does not know; it knows: {known}.")
    checked: dict[str, Array] = {}
    leading: tuple[int, ...] = ()
    for name, dtype, shape in columns:
        if name not in rows:
            raise ReplayMismatch(f"Rows lack the entry {name!r}.")
        value = np.asarray(rows[name])
        if value.ndim != 2 + len(shape) or value.shape[2:] != shape:
            raise ReplayMismatch(f"Rows {name!r} have the shape {value.shape}; it must be (N, T) + {shape}.")
        if not np.can_cast(value.dtype, dtype, casting="same_kind"):
            raise ReplayMismatch(f"Rows {name!r} are {value.dtype}, which does not fit {np.dtype(dtype)}.")
        leading = leading or value.shape[:2]
        if value.shape[:2] != leading:
            raise ReplayMismatch(f"Rows {name!r} have {value.shape[:2]} streams and steps, others {leading}.")
        checked[name] = value
    if 0 in leading:
        raise ReplayMismatch(f"Rows have {leading[0]} streams of {leading[1]} steps: there is nothing to store.")
    return checked, (leading[0], leading[1])


def checked_latents(schema: Schema, row_id: Ids, latents: Mapping[str, Array]) -> dict[str, Array]:
    """``latents``, with or without their prefix, by column name; entries are ``(*row_id.shape, ...)``.

    Raises `ReplayMismatch`.
    """
    checked = {}
    for name, dtype, shape in schema.latents:
        value = latents.get(name, latents.get(name.removeprefix(LATENT)))
        if value is None or value.shape != (*row_id.shape, *shape):
            given = "missing" if value is None else value.shape
            raise ReplayMismatch(f"Written-back {name!r} is {given}; it must be {(*row_id.shape, *shape)}.")
        if not np.can_cast(value.dtype, dtype, casting="same_kind"):
            raise ReplayMismatch(f"Written-back {name!r} is {value.dtype}, which does not fit {np.dtype(dtype)}.")
        checked[name] = value
    return checked


def row_bytes(schema: Schema) -> dict[str, float]:
    """Bytes that one row takes, of observations, of latents (spread over the stride), and of the rest."""
    sizes = {"obs": 0.0, "latents": 0.0, "rest": 0.0}
    for name, dtype, shape in schema.stored_rows:
        kind = "obs" if (name, dtype, shape) in schema.rows and name.split("/")[0] not in NOT_OBSERVED else "rest"
        sizes[kind] += np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    for _, dtype, shape in schema.stored_latents:
        sizes["latents"] += np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64)) / schema.stride
    return sizes

"""Copying one window out of its chunks into a row of a batch."""

from __future__ import annotations

from collections.abc import MutableMapping

import numpy as np
from oneiros.platform.replay.blocks import Array
from oneiros.platform.replay.chunks import VALID, Chunk, Schema
from oneiros.platform.replay.windows import row_id


def gather(
    schema: Schema, context: int, out: MutableMapping[str, Array], index: int, chunk: Chunk, offset: int
) -> None:
    """Fill ``out[...][index]`` with the window that begins at row ``offset`` of ``chunk``; it may run into the next."""
    if schema.latents and context:
        _gather_latents(schema, context, out, index, chunk, offset)
    ids, done = out["row_id"][index], 0
    window = len(ids)
    while True:
        count = min(window - done, chunk.size - offset)
        source, target = slice(offset, offset + count), slice(done, done + count)
        columns = chunk.rows.columns
        for name, _, _ in schema.rows:
            out[name][index, target] = columns[name][source]
        base = row_id(chunk.id, offset)
        ids[target] = np.arange(base, base + count)
        done += count
        if done == window:
            return
        assert chunk.next is not None
        chunk, offset = chunk.next, 0


def _gather_latents(
    schema: Schema, context: int, out: MutableMapping[str, Array], index: int, chunk: Chunk, offset: int
) -> None:
    valid, done = True, 0
    while done < context:
        assert chunk.latents is not None
        columns, stride = chunk.latents.columns, chunk.stride
        count = min(context - done, chunk.size - offset)
        slots = slice(offset // stride, offset // stride + count)
        for name, _, _ in schema.latents:
            out[name][index, done : done + count] = columns[name][slots]
        valid = valid and bool(columns[VALID][slots].all())
        done += count
        if done < context:
            assert chunk.next is not None
            chunk, offset = chunk.next, 0
    out["latent_valid"][index] = valid

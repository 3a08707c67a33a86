"""What a saved replay holds, chunk by chunk, without building the replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from oneiros.platform.replay.blocks import Array, columns_of
from oneiros.platform.replay.chunks import JOINS, Schema, open_chunk
from oneiros.platform.replay.snapshot import read_index

if TYPE_CHECKING:
    from oneiros.algorithms.contract import Field


def stored_rows(
    fields: Mapping[str, Field], directory: Path
) -> Iterator[tuple[int, NDArray[np.bool_], dict[str, Array]]]:
    """The rows of what ``Replay.save`` wrote, in the order in which their chunks were begun.

    Each is the stream, whether each row joins the one before it ``(T,)``, and the rows ``(T, ...)`` that ``fields``
    (without latents) describes. Raises ``CorruptChunk``, ``ReplayMismatch`` or ``FileNotFoundError``.
    """
    schema = Schema(columns_of(fields), (), 1)
    last: dict[int, int] = {}
    for entry in read_index(directory)["chunks"]:
        chunk, _ = open_chunk(
            schema, directory, entry["id"], mapped=False, count=entry["count"], checks=entry["checks"]
        )
        columns = {name: column[: chunk.count] for name, column in chunk.rows.columns.items()}
        joins = columns.pop(JOINS).copy()
        if len(joins):
            # The row before may have been evicted.
            joins[0] = joins[0] and last.get(chunk.stream) == chunk.previous
            last[chunk.stream] = chunk.id
            yield chunk.stream, joins, columns

"""Which worlds there are: map seeds of the engine, apart for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from oneiros.envs.contract import InvalidOption

TRAIN = range(1, 1_000_001)
HELD_OUT = range(2_000_001, 2_001_001)
SETS = {"train": TRAIN, "held-out": HELD_OUT}


def choose(value: Any) -> Sequence[int]:
    """The option ``worlds``: the name of a set, or map seeds; raises ``InvalidOption``."""
    if isinstance(value, str) and value in SETS:
        return SETS[value]
    if isinstance(value, list | tuple | range) and len(value) and all(_is_seed(seed) for seed in value):
        return [int(seed) for seed in value] if not isinstance(value, range) else value
    raise InvalidOption(
        f"the option worlds is {' or '.join(SETS)}, or a list of map seeds from 0 to 2**63 - 1, not {value!r}"
    )


def _is_seed(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < 2**63

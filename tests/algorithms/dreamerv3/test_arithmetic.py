"""What ``oneiros bench`` counts as an update's arithmetic is what a hand count gives, for what is most of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from device import moved, stand_in
from gymnasium import spaces
from oneiros.algorithms.dreamerv3 import DreamerV3
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

DEPTH, SIDE = 4, 32
OBS = {"obs": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)}


def convolutions(rows: int) -> int:
    """Two operations a weight, place and row; as much again for each of the gradients, but none towards the pixels.

    The encoder has 5x5 kernels on pictures of the side before pooling; the decoder those of the side that it enlarges,
    of which a place takes nine products.
    """
    widths = [DEPTH * m for m in (2, 3, 4, 4)]
    total = 0
    for layer, (inputs, outputs) in enumerate(pairwise([3, *widths])):
        places = (SIDE >> layer) ** 2
        total += (2 if layer == 0 else 3) * 2 * 25 * inputs * outputs * places * rows
    sides = [SIDE >> 3, SIDE >> 2, SIDE >> 1, SIDE]
    for side, (inputs, outputs) in zip(sides, pairwise([*reversed(widths), 3]), strict=True):
        total += 3 * 2 * 9 * inputs * outputs * side**2 * rows
    return total


def test_convolutions(make_agent: Callable[..., DreamerV3], make_rows: Callable[..., dict[str, Tensor]]) -> None:
    batch, length = 2, 5
    rows = make_rows(make_agent(OBS, depth=DEPTH), batch, length)
    with stand_in(), FlopCounterMode(display=False) as counter:
        agent = make_agent(OBS, depth=DEPTH, device="meta", imagination_length=2)
        agent.backward(moved(rows))
    counted = counter.get_flop_counts()["Global"]
    found = sum(flops for operation, flops in counted.items() if "conv" in str(operation))
    assert found == convolutions(batch * (length - 1))

"""The decoder's convolution: of a picture enlarged by two, without the enlargement."""

from __future__ import annotations

import torch
from oneiros.algorithms.nn.layers import Conv
from torch import Tensor
from torch.nn import functional as F


class UpConv(Conv):
    """`Conv` of the nearest-neighbour enlargement by two, ``(N, C, H, W) -> (N, outputs, 2 H, 2 W)``.

    Each pixel of the enlargement stands in it four times, so what a 5x5 kernel says of one output pixel is a 3x3 kernel
    over the small picture, one for each of the four places in a block. That is the same sum with 9 products in place of
    25, with nothing enlarged, and with four times the output channels, which few channels at many pixels lack on CPUs.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        taps = torch.zeros(2, 3, 5)
        for place in range(2):
            for tap in range(5):
                taps[place, (place + tap) // 2, tap] = 1
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge and convolve ``(N, C, H, W)``."""
        weight, bias = self.weights(x.dtype)
        taps = self.taps.to(x.dtype)
        small = torch.einsum("yak,xbl,oikl->oyxiab", taps, taps, weight).flatten(0, 2)
        return F.pixel_shuffle(F.conv2d(x, small, None if bias is None else bias.repeat_interleave(4), padding=1), 2)

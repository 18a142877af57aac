"""Modulated deformable convolution, DCNv2 (Zhu et al. 2019, section 3.2), 3x3 with stride 1.

The meaning is that of ``torchvision.ops.deform_conv2d``: offsets come as (y, x) for each tap, row by row; samples are
bilinear; what lies outside the image is zero; each sample is scaled by ``2 * sigmoid(modulator)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

TAPS = 9


class DeformConv2d(nn.Module):
    """``(N, in_channels, H, W) -> (N, out_channels, H, W)``, float.

    Offsets and modulator are predicted from the same input by two 3x3 convolutions with bias that start at zero, as Dai et al.
    2017 (section 2.1) have it: a fresh layer is an ordinary 3x3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset_limit: float | None = None
        """Pixels that offsets are clamped to, either way; ``None`` for no limit."""
        self.offset_conv = nn.Conv2d(in_channels, 2 * TAPS, 3, padding=1)
        self.modulator_conv = nn.Conv2d(in_channels, TAPS, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # what nn.Conv2d does
        for conv in (self.offset_conv, self.modulator_conv):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset_conv(x)
        if self.offset_limit is not None:
            offset = offset.clamp(-self.offset_limit, self.offset_limit)
        mask = 2.0 * torch.sigmoid(self.modulator_conv(x))
        return deform_conv2d(x, offset, self.weight, padding=1, mask=mask)

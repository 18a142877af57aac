"""EDAM, the dual attention of ACWFace: which channels, then which places."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """``(N, C, H, W) -> (N, C, 1, 1)`` in (0.5, 0.89): a 1-D convolution over neighbouring channels (ECA, Wang et al. 2020, section 3.3).

    Average and maximum share the convolution and are squashed twice, as the public code has it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = math.ceil((math.log2(channels) + 1) / 2)
        kernel += 1 - kernel % 2
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # amax rather than AdaptiveMaxPool2d, which torch.onnx does not know.
        average, maximum = (
            torch.sigmoid(self.conv(pooled.flatten(2).transpose(1, 2))) for pooled in (self.avg_pool(x), x.amax((2, 3), keepdim=True))
        )
        return torch.sigmoid(average + maximum).transpose(1, 2).unsqueeze(-1)


class SpatialAttention(nn.Module):
    """``(N, C, H, W) -> (N, 1, H, W)`` in (0, 1): a 49x49 convolution over maximum and mean.

    CBAM (Woo et al. 2018, section 3) at a far larger kernel.
    """

    def __init__(self, kernel: int = 49) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(pooled))


class EDAM(nn.Module):
    """``(N, C, H, W) -> (N, C, H, W)``: ``x + x * channel(x) * spatial(x * channel(x))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        attended = x * self.channel(x)
        return attended * self.spatial(attended) + x

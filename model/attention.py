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


class ChannelPool(nn.Module):
    """``(N, C, H, W) -> (N, 2, H, W)``: maximum and mean over channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)


class SpatialAttention(nn.Module):
    """``(N, C, H, W) -> (N, 1, H, W)`` in (0, 1): a 49x49 convolution over maximum and mean.

    CBAM (Woo et al. 2018, section 3) at a far larger kernel.

    Args:
        rank: the kernel is a sum of so many products of a row and a column, computed as two convolutions: at rank 4 an eighth of the
            arithmetic. ``None`` for any kernel.
    """

    def __init__(self, rank: int | None = None, kernel: int = 49) -> None:
        super().__init__()
        self.pool = ChannelPool()
        self.conv: nn.Module
        if rank is None:
            self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        else:
            rows = nn.Conv2d(2, rank, (1, kernel), padding=(0, kernel // 2), bias=False)
            self.conv = nn.Sequential(rows, nn.Conv2d(rank, 1, (kernel, 1), padding=(kernel // 2, 0)))
        self.by_fourier = False
        """Set by :meth:`model.detector.Detector.use_training_forms`: see :func:`fourier_conv`."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        if self.by_fourier:
            weight, bias = self._kernel()
            return torch.sigmoid(fourier_conv(pooled, weight) + bias)
        return torch.sigmoid(self.conv(pooled))

    def _kernel(self) -> tuple[Tensor, Tensor]:
        """``(1, 2, k, k)`` and ``(1,)``, also where it is computed as two."""
        if isinstance(self.conv, nn.Conv2d):
            return self.conv.weight, self.conv.bias
        rows, columns = self.conv
        return torch.einsum("orkx,rcyl->ockl", columns.weight, rows.weight), columns.bias


def fourier_conv(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(x, weight, padding=k // 2)`` for one output channel and a large odd kernel, as a product of spectra.

    ``(N, C, H, W)`` and ``(1, C, k, k)`` to ``(N, 1, H, W)``, float. At 8x2x44x44 and k = 49, forward and backward on two cores: 2 ms; the
    kernel split into rows that become output channels: 14 ms; the plain convolution: 134 ms.
    """
    height, width = x.shape[-2:]
    kernel = weight.shape[-1]
    half = kernel // 2
    # What wraps round a period of H + k // 2 falls on rows that are cut off.
    period = [_smooth(max(length + half, kernel)) for length in (height, width)]
    with torch.autocast(x.device.type, enabled=False):  # half-precision transforms want powers of two
        x, weight = (values.float() if values.dtype.itemsize < 4 else values for values in (x, weight))
        spectrum = (torch.fft.rfft2(x, s=period) * torch.fft.rfft2(weight.flip(-2, -1), s=period)).sum(dim=1, keepdim=True)
        return torch.fft.irfft2(spectrum, s=period)[..., half : half + height, half : half + width]


def _smooth(length: int) -> int:
    """The next even length without a prime factor above 5, which transforms fast."""
    length += length % 2
    rest = length
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return length if rest == 1 else _smooth(length + 2)


class EDAM(nn.Module):
    """``(N, C, H, W) -> (N, C, H, W)``: ``x + x * channel(x) * spatial(x * channel(x))``."""

    def __init__(self, channels: int, rank: int | None = None) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention(rank)

    def forward(self, x: Tensor) -> Tensor:
        attended = x * self.channel(x)
        return attended * self.spatial(attended) + x

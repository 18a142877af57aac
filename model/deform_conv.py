"""Modulated deformable convolution, DCNv2 (Zhu et al. 2019, section 3.2), 3x3 with stride 1.

The meaning is that of ``torchvision.ops.deform_conv2d``: offsets come as (y, x) for each tap, row by row; samples are
bilinear; what lies outside the image is zero; each sample is scaled by ``2 * sigmoid(modulator)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample
from torchvision.ops import deform_conv2d

TAPS = 9

Operator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(x, offset, mask, weight) -> output``: the deformable convolution, given what the layer has predicted."""


class DeformConv2d(nn.Module):
    """``(N, in_channels, H, W) -> (N, out_channels, H, W)``, float.

    Offsets and modulator are predicted from the same input by two 3x3 convolutions with bias that start at zero, as Dai et al.
    2017 (section 2.1) have it: a fresh layer is an ordinary 3x3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offset_limit: float | None = None
        """Pixels that offsets are clamped to, either way; ``None`` for no limit."""
        self.training_operator: Operator | None = None
        """Set by :meth:`model.detector.Detector.use_training_forms`: an equal form with a faster backward pass than torchvision's."""
        self.offset_conv = nn.Conv2d(in_channels, 2 * TAPS, 3, padding=1)
        self.modulator_conv = nn.Conv2d(in_channels, TAPS, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # what nn.Conv2d does
        for conv in (self.offset_conv, self.modulator_conv):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.training_operator is not None:
            return self._training_forward(x, self.training_operator)
        offset = self.offset_conv(x)
        if self.offset_limit is not None:
            offset = offset.clamp(-self.offset_limit, self.offset_limit)
        mask = 2.0 * torch.sigmoid(self.modulator_conv(x))
        return deform_conv2d(x, offset, self.weight, padding=1, mask=mask)

    def _training_forward(self, x: Tensor, operator: Operator) -> Tensor:
        """The same with one convolution for offsets and modulator."""
        convs = (self.offset_conv, self.modulator_conv)
        predicted = conv2d(x, torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs]), padding=1)
        offset, modulator = predicted.split((2 * TAPS, TAPS), dim=1)
        if self.offset_limit is not None:
            offset = offset.clamp(-self.offset_limit, self.offset_limit)
        return operator(x, offset, 2.0 * torch.sigmoid(modulator), self.weight)


def mix_then_sample(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Deformable convolution on standard operators, on any device, differentiable in all arguments.

    Sampling acts on space and the tap matrix on channels, so they commute: where the layer has fewer outputs than inputs, nine
    1x1 convolutions come first and their outputs are sampled; elsewhere the inputs are.
    """
    batch, channels, height, width = x.shape
    outputs = weight.shape[0]
    if outputs < channels:
        mixed = conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1)).reshape(batch * TAPS, outputs, height, width)
        sampled = grid_sample(mixed, _grid(offset).flatten(0, 1), "bilinear", "zeros", align_corners=False)
        return (sampled.unflatten(0, (batch, TAPS)) * mask.unsqueeze(2)).sum(1)
    # One tall picture for each image: the taps one below the other.
    sampled = grid_sample(x, _grid(offset).flatten(1, 2), "bilinear", "zeros", align_corners=False).unflatten(2, (TAPS, height))
    return torch.einsum("nckhw,nkhw,ock->nohw", sampled, mask, weight.flatten(2))


def _grid(offset: Tensor) -> Tensor:
    """``(N, 18, H, W)`` offsets to ``(N, 9, H, W, 2)`` sampling points (x, y) in grid_sample's units: -1 and 1 are the image's borders."""
    offset = offset.float() if offset.dtype.itemsize < 4 else offset  # half precision cannot tell places apart
    height, width = offset.shape[2:]
    tap = torch.arange(TAPS, device=offset.device, dtype=offset.dtype).view(TAPS, 1, 1)
    rows = torch.arange(height, device=offset.device, dtype=offset.dtype).view(height, 1)
    columns = torch.arange(width, device=offset.device, dtype=offset.dtype)
    y = rows + tap.div(3, rounding_mode="floor") - 1 + offset[:, 0::2]
    x = columns + tap % 3 - 1 + offset[:, 1::2]
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)

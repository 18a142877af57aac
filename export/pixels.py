"""Between torch's planes and the rows of channels that mobile runtimes compute in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.deform_conv import TAPS


def pixelwise(predicted: Sequence[Tensor], limit: float | None) -> tuple[Tensor, Tensor]:
    """Offsets ``(1, H, W, 18)`` and mask ``(1, H, W, 9)`` as the operator means them, from what a layer's convolutions give."""
    pixels = (predicted[0] if len(predicted) == 1 else torch.cat(list(predicted), dim=1)).permute(0, 2, 3, 1)
    offset, modulator = pixels[..., : 2 * TAPS], pixels[..., 2 * TAPS :]
    return offset if limit is None else offset.clamp(-limit, limit), 2.0 * torch.sigmoid(modulator)


def as_image(pixels: Tensor) -> Tensor:
    """``(1, H, W, C)`` to ``(1, C, H, W)``, in that order in memory: what torch.onnx makes of later views depends on it."""
    return pixels.permute(0, 3, 1, 2).contiguous()

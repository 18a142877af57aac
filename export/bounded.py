"""Deformable convolution without a gather, for layers whose offsets are limited: route ``bounded``.

A sample less than R pixels away from its tap is a sum over the ``(2 R + 1)^2`` pixels round that tap, each weighted by a tent function of
its distance: bilinear interpolation, written out. So the operator becomes shifted slices, multiplications and additions, which every
accelerator has, at fixed cost. Exact for offsets within the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, pad, relu

from export.pixels import as_image, pixelwise
from model.deform_conv import TAPS


def bounded(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float, slope: float) -> Tensor:
    """The weight first, tap by tap; then the products are sampled and added up. An :data:`export.deform_routes.Operator`."""
    outputs, channels = weight.shape[:2]
    padded = pad(x, [1 + math.ceil(limit)] * 4)
    products = conv2d(padded, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1)).permute(0, 2, 3, 1)
    out = _sample(products.split(outputs, dim=3), predicted, limit).sum(3)
    out = as_image(out if bias is None else out + bias)
    return out if slope == 1 else leaky_relu(out, slope)


def _sample(maps: Sequence[Tensor], predicted: Sequence[Tensor], limit: float) -> Tensor:
    """What each tap sees in its own map: nine of ``(1, H + 2 (R + 1), W + 2 (R + 1), C)`` to ``(1, H, W, 9, C)``."""
    height, width = (length - 2 for length in maps[0].shape[1:3])  # all places that a tap's neighbours may have
    moved = torch.stack([maps[tap][:, tap // 3 : tap // 3 + height, tap % 3 : tap % 3 + width] for tap in range(TAPS)], dim=3)
    total = None
    for row, column, share in _shares(predicted, limit):
        part = moved[:, row : row + share.shape[1], column : column + share.shape[2]] * share
        total = part if total is None else total + part
    return total


def _shares(predicted: Sequence[Tensor], limit: float) -> Iterator[tuple[int, int, Tensor]]:
    """What each pixel round a tap contributes: its row and column from 0, ``(1, H, W, 9, 1)``."""
    offset, mask = pixelwise(predicted, limit)
    radius = math.ceil(limit)
    down, across = ([relu(1 - (offset[..., axis::2] - shift).abs()) for shift in range(-radius, radius + 1)] for axis in (0, 1))
    for row, vertical in enumerate(down):
        for column, horizontal in enumerate(across):
            yield row, column, (vertical * mask * horizontal).unsqueeze(4)

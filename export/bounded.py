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
from model.config import ModelConfig
from model.deform_conv import TAPS
from model.errors import UserError

LARGEST_LIMIT = 2
"""Pixels, of the offsets that the route is made for."""


def bounded(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float, slope: float) -> Tensor:
    """The weight first, tap by tap; then the products are sampled and added up. An :data:`export.deform_routes.Operator`.

    The products of the nine taps lie one below the other in one tall picture, with a margin round each, so that one slice moves all of
    them: no tensor has more than four axes, or more than one picture.
    """
    outputs, channels = weight.shape[:2]
    radius = math.ceil(limit)
    height, width = x.shape[2:]
    tall = height + 2 * radius
    padded = pad(x, [1 + radius] * 4)
    products = conv2d(padded, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1)).permute(0, 2, 3, 1)
    stacked = torch.cat(
        [
            products[:, tap // 3 : tap // 3 + tall, tap % 3 : tap % 3 + width + 2 * radius, tap * outputs : (tap + 1) * outputs]
            for tap in range(TAPS)
        ],
        dim=1,
    )
    rows = TAPS * tall - 2 * radius  # down to the last tap's last row; between taps lie rows that mean nothing

    def lay(values: Tensor) -> Tensor:
        """``(1, H, W, 9)`` like the picture: ``(1, rows, W, 1)``."""
        return pad(values.permute(0, 3, 1, 2), (0, 0, 0, 2 * radius)).reshape(1, TAPS * tall, width, 1)[:, :rows]

    offset, mask = pixelwise(predicted, limit)
    total = None
    for down, across, share in shares(lay(offset[..., 0::2]), lay(offset[..., 1::2]), lay(mask), radius):
        part = stacked[:, down : down + rows, across : across + width] * share
        total = part if total is None else total + part
    out = sum(total[:, tap * tall : tap * tall + height] for tap in range(TAPS))
    out = as_image(out if bias is None else out + bias)
    return out if slope == 1 else leaky_relu(out, slope)


def shares(y: Tensor, x: Tensor, mask: Tensor, radius: int) -> Iterator[tuple[int, int, Tensor]]:
    """What each pixel round a tap contributes: its row and column from 0, and its factor, in the shape of ``y``, ``x`` and ``mask``.

    Args:
        y, x: offsets of at most ``radius`` pixels.
        mask: what the sample is multiplied by.
        radius: pixels.
    """
    vertical, horizontal = ([relu(1 - (offset - shift).abs()) for shift in range(-radius, radius + 1)] for offset in (y, x))
    for down, tent in enumerate(vertical):
        masked = tent * mask
        for across, other in enumerate(horizontal):
            yield down, across, masked * other


def require_limit(config: ModelConfig) -> None:
    """Raise a :class:`UserError` where the route would not be exact, or too slow for anybody."""
    if config.offset_limit is None or config.offset_limit > LARGEST_LIMIT:
        limit = "no limit on its offsets" if config.offset_limit is None else f"offsets of up to {config.offset_limit:g} pixels"
        raise UserError(
            f"--dcn bounded is for offsets of at most {LARGEST_LIMIT} pixels, this {config.variant} has {limit}; a tap costs 9 products "
            "for 1 pixel, 25 for 2, 49 for 3: train with an offset_limit, or take --dcn decomposed"
        )

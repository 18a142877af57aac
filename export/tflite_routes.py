"""Deformable convolutions in the form that LiteRT runs fastest.

Differences from the ONNX form of ``decomposed``: pixels stay rows of channels from end to end, as LiteRT lays them out; an index is
computed in float, which XNNPACK does (integers it leaves alone) and which is exact up to 2^24; indices have one axis, as LiteRT's GPU
delegate wants them. Milliseconds of a layer on one AVX-512 core, its predictions included:

    channels, size     four gathers, sampled first   mixed first   one gather and batched products, mixed first
    64 to 16, 80x80                           19.0           8.3                                           10.3
    16 to 16, 80x80                            4.0           5.2                                            6.9
    64 to 64, 80x80                           22.0          24.9                                           26.3
    64 to 64, 40x40                            3.8           4.7                                            5.0

So mixing comes first where it makes channels fewer, and batched products never. Gathering piece by piece changes nothing: LiteRT runs all
gathers together, between two parts that XNNPACK takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, embedding, grid_sample, leaky_relu, pad

from export.bounded import bounded
from export.deform_routes import Requirements, Route
from export.kernel import LIBRARIES
from export.pixels import as_image, pixelwise
from model.deform_conv import TAPS


def _corners(predicted: Sequence[Tensor], limit: float | None) -> tuple[Tensor, int, list[Tensor]]:
    """Where each tap samples, in an image with a border of one zero.

    Returns:
        Number of the upper left of the four pixels round each sample, row by row, ``(1, H, W, 9)`` float; how many pixels a row has; what
        each of the four contributes, row by row, ``(1, H, W, 9, 1)`` each.
    """
    offset, mask = pixelwise(predicted, limit)
    height, width = mask.shape[1:3]
    tap = torch.arange(TAPS)
    corners, fractions = [], []
    for axis, length, place in (
        (0, height, torch.arange(height).view(-1, 1, 1) + (tap // 3 - 1)),
        (1, width, torch.arange(width).view(1, -1, 1) + (tap % 3 - 1)),
    ):
        # A sample further out than the border is as zero as one on it.
        point = (offset[..., axis::2] + place.float()).clamp(-1.0, float(length)) + 1
        corner = point.floor().clamp(max=float(length))
        corners.append(corner)
        fractions.append(point - corner)
    below, right = fractions
    lower = below * mask
    upper = mask - lower
    upper_right, lower_right = upper * right, lower * right
    shares = [upper - upper_right, upper_right, lower - lower_right, lower_right]
    return corners[0] * (width + 2) + corners[1], width + 2, [share.unsqueeze(4) for share in shares]


def _gather(rows: Tensor, first: Tensor, shares: Sequence[Tensor], steps: Sequence[int]) -> Tensor:
    """Bilinear samples: ``(M, C)`` rows, ``(1, H, W, 9)`` float numbers of rows to ``(1, H, W, 9, C)``."""
    index = first.to(torch.int32).flatten()
    shape = (*first.shape, rows.shape[1])
    return sum(share * embedding(index + step, rows).view(shape) for share, step in zip(shares, steps, strict=True))


def _decomposed_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    outputs, channels = weight.shape[:2]
    first, stride, shares = _corners(predicted, limit)
    rows = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).reshape(-1, channels)
    sampled = _gather(rows, first, shares, (0, 1, stride, stride + 1)).flatten(3)
    out = conv2d(as_image(sampled), weight.permute(0, 2, 3, 1).reshape(outputs, TAPS * channels, 1, 1), bias)
    return out if slope == 1 else leaky_relu(out, slope)


def _decomposed_mixed(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    outputs, channels = weight.shape[:2]
    first, stride, shares = _corners(predicted, limit)
    mixed = conv2d(pad(x, (1, 1, 1, 1)), weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1))
    rows = mixed.permute(0, 2, 3, 1).reshape(-1, outputs)
    tapped = first * TAPS + torch.arange(TAPS).float()
    out = _gather(rows, tapped, shares, [TAPS * step for step in (0, 1, stride, stride + 1)]).sum(3)
    out = as_image(out if bias is None else out + bias)
    return out if slope == 1 else leaky_relu(out, slope)


def _grid_sample(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float) -> Tensor:
    """As public code does it where deformable convolution is missing: a yardstick."""
    offset, mask = pixelwise(predicted, limit)
    height, width = mask.shape[1:3]
    tap = torch.arange(TAPS).view(-1, 1, 1)
    row, column = (
        offset[0, ..., axis::2].permute(2, 0, 1) + (place + steps).float()
        for axis, place, steps in ((0, torch.arange(height).view(1, -1, 1), tap // 3 - 1), (1, torch.arange(width), tap % 3 - 1))
    )
    grid = torch.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], dim=-1).flatten(0, 1)
    sampled = grid_sample(x, grid.unsqueeze(0), mode="bilinear", padding_mode="zeros", align_corners=True)
    taps = sampled.unflatten(2, (TAPS, height)) * mask.permute(0, 3, 1, 2).unsqueeze(1)
    out = conv2d(taps.flatten(1, 2), weight.flatten(2).flatten(1, 2)[..., None, None], bias)
    return out if slope == 1 else leaky_relu(out, slope)


STAND_IN = -(2.0**40)
"""Where a convolution's weights begin so, :func:`export.tflite_model.place_deformable_operators` puts an operator of ours."""


def _stand_in(
    predicted: Sequence[Tensor], source: Tensor, weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """A convolution of the same inputs, shape and parameters as an operator that the converter does not know.

    Its first input channels are offsets and modulators; what would be their weights says that it is none, and holds the attributes.
    """
    outputs, _, height, width = weight.shape
    words = torch.zeros(3 * TAPS)
    words[:3] = torch.tensor([STAND_IN, limit or 0.0, slope])
    head = words.view(1, -1, 1, 1).expand(outputs, -1, height, width)
    return conv2d(torch.cat([*predicted, source], dim=1), torch.cat([head, weight], dim=1), bias, padding=height // 2)


def _custom_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """``DeformConvTiled`` of ``export/kernel/``."""
    if not torch.compiler.is_exporting():
        return _decomposed_direct(x, predicted, weight, bias, limit, slope)
    return _stand_in(predicted, x, weight, bias, limit, slope)


def _custom_mixed(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float) -> Tensor:
    """``DeformSample`` of ``export/kernel/``."""
    if not torch.compiler.is_exporting():
        return _decomposed_mixed(x, predicted, weight, bias, limit, slope)
    outputs, channels = weight.shape[:2]
    mixed = conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1))
    return _stand_in(predicted, mixed, torch.zeros(outputs, TAPS * outputs, 1, 1), bias, limit, slope)


def _fewer(inputs: int, outputs: int) -> bool:
    return outputs < inputs


TFLITE_ROUTES = {
    "decomposed": Route(_decomposed_mixed, _decomposed_direct, _fewer, Requirements()),
    "bounded": Route(bounded, bounded, lambda inputs, outputs: True, Requirements()),
    "custom": Route(_custom_mixed, _custom_direct, _fewer, Requirements(library=LIBRARIES["litert"])),
    "grid-sample": Route(_grid_sample, _grid_sample, lambda inputs, outputs: False, Requirements()),
}
"""By name; :data:`export.deform_routes.ROUTES` has those of ONNX."""

PRECISIONS = ("fp32", "fp16")
"""``fp16``: weights are stored as float16, arithmetic is in float32."""

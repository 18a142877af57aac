"""Deformable convolutions in the form that suits Core ML: planes of pixels, at most four axes, convolutions for sums.

``decomposed`` samples with the operator ``resample``, which takes fractional coordinates: bilinear, zeros outside the picture, as
``torch.nn.functional.grid_sample`` has it. The form of the other formats, gathers of pixels, would be some twenty operators instead of one,
and numbers its pixels with integers that half precision cannot hold; ``resample`` takes coordinates from -1 to 1, which at an input of 640
half precision tells apart to 0.02 pixels of the map. Its iOS 16 version takes them in half precision
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html#coremltools.converters.mil.mil.ops.defs.iOS16.image_resizing.resample),
GPUs have it as ``MPSGraph.sampleGrid``, and Neural Engines are reported to have a sampler from the A14 on
(https://ane-guide.readthedocs.io/en/latest/part-1-machine/04-capability-surface.html).

``bounded`` is for processors without one: slices, multiplications, additions.

``custom`` is for apps that bring a kernel along: one custom layer, which only the older neural-network format has.

Where mixing comes first, the nine products are nine pictures of a batch, each sampled at its tap's points; a last convolution adds them up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, leaky_relu

from export.bounded import shares
from export.deform_routes import Requirements, Route
from model.deform_conv import TAPS


def _predicted(predicted: Sequence[Tensor], limit: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets down and to the right, and the mask: ``(9, 1, H, W)`` each."""
    together = predicted[0] if len(predicted) == 1 else torch.cat(list(predicted), dim=1)
    offset, modulator = together.split((2 * TAPS, TAPS), dim=1)
    height, width = _sides(together)
    offset = offset.reshape(TAPS, 2, height, width)
    offset = offset if limit is None else offset.clamp(-limit, limit)
    mask = 2.0 * torch.sigmoid(modulator.reshape(TAPS, 1, height, width))
    return *offset.split(1, dim=1), mask


def _sides(x: Tensor) -> tuple[int, int]:
    """Height and width as numbers: tracing would make tensors of them."""
    return int(x.shape[2]), int(x.shape[3])


def _points(y: Tensor, x: Tensor) -> Tensor:
    """``(9, H, W, 2)``: where each tap samples, x first; -1 and 1 are the picture's borders."""
    height, width = _sides(y)
    tap = torch.arange(TAPS, dtype=torch.float64).view(TAPS, 1, 1, 1)
    rows, columns = torch.arange(height).view(1, 1, -1, 1) + tap.div(3, rounding_mode="floor") - 1, torch.arange(width) + tap % 3 - 1
    points = [
        offset * (2 / length) + ((2 * place + 1) / length - 1).float() for offset, place, length in ((x, columns, width), (y, rows, height))
    ]
    return torch.cat(points, dim=1).permute(0, 2, 3, 1)


def _decomposed_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """The nine samples of a pixel lie one below the other in one tall picture."""
    outputs, channels = weight.shape[:2]
    height, width = _sides(x)
    down, right, mask = _predicted(predicted, limit)
    points = _points(down, right).reshape(1, TAPS * height, width, 2)
    sampled = grid_sample(x, points, "bilinear", "zeros", align_corners=False) * mask.reshape(1, 1, TAPS * height, width)
    out = conv2d(sampled.reshape(1, channels * TAPS, height, width), weight.reshape(outputs, channels * TAPS, 1, 1), bias)
    return out if slope == 1 else leaky_relu(out, slope)


def _decomposed_mixed(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    products = _products(x, weight, margin=0)
    down, right, mask = _predicted(predicted, limit)
    sampled = grid_sample(products, _points(down, right), "bilinear", "zeros", align_corners=False) * mask
    return _add_up(sampled, bias, slope)


def _bounded(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float, slope: float) -> Tensor:
    radius = math.ceil(limit)
    height, width = _sides(x)
    products = _products(x, weight, margin=1 + radius)
    tall, wide = height + 2 * radius, width + 2 * radius
    moved = torch.cat(
        [products[tap : tap + 1, :, tap // 3 : tap // 3 + tall, tap % 3 : tap % 3 + wide] for tap in range(TAPS)]
    )  # each tap's product where the tap is
    down, right, mask = _predicted(predicted, limit)
    sampled = None
    for row, column, share in shares(down, right, mask, radius):
        part = moved[:, :, row : row + height, column : column + width] * share
        sampled = part if sampled is None else sampled + part
    return _add_up(sampled, bias, slope)


@torch.library.custom_op("acwface::deform_sample", mutates_args=())
def deform_sample(predicted: Tensor, mixed: Tensor, bias: Tensor, channels: int, offset_limit: float, negative_slope: float) -> Tensor:
    """DeformSample of ``export/kernel/README.md``, with channels last, as the custom layer gets it.

    ``predicted (1, H, W, 27)``, ``mixed (1, H, W, 9 O)``, ``bias (O,)``, ``channels`` O, ``offset_limit`` 0 for none: ``(1, H, W, O)``.
    """
    down, right, mask = _predicted([predicted.permute(0, 3, 1, 2)], offset_limit or None)
    products = mixed.permute(0, 3, 1, 2).reshape(TAPS, channels, *predicted.shape[1:3])
    sampled = grid_sample(products, _points(down, right), "bilinear", "zeros", align_corners=False) * mask
    return _add_up(sampled, bias, negative_slope).permute(0, 2, 3, 1).contiguous()


def _custom(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float) -> Tensor:
    outputs, channels = weight.shape[:2]
    together = predicted[0] if len(predicted) == 1 else torch.cat(list(predicted), dim=1)
    mixed = conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1))
    bias = torch.zeros(outputs) if bias is None else bias
    out = deform_sample(together.permute(0, 2, 3, 1), mixed.permute(0, 2, 3, 1), bias, outputs, limit or 0.0, slope)
    return out.permute(0, 3, 1, 2)


def _products(x: Tensor, weight: Tensor, margin: int) -> Tensor:
    """``(9, O, H + 2 margin, W + 2 margin)``: the weight of each tap applied to every pixel, and zeros round them."""
    outputs, channels = weight.shape[:2]
    height, width = _sides(x)
    products = conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1), padding=margin)
    return products.reshape(TAPS, outputs, height + 2 * margin, width + 2 * margin)


def _add_up(sampled: Tensor, bias: Tensor | None, slope: float) -> Tensor:
    """``(9, O, H, W)`` to ``(1, O, H, W)``."""
    outputs = sampled.shape[1]
    height, width = _sides(sampled)
    ones = torch.eye(outputs).repeat(1, TAPS).view(outputs, TAPS * outputs, 1, 1)
    out = conv2d(sampled.reshape(1, TAPS * outputs, height, width), ones, bias)
    return out if slope == 1 else leaky_relu(out, slope)


COREML_ROUTES = {
    "decomposed": Route(_decomposed_mixed, _decomposed_direct, lambda inputs, outputs: outputs < inputs, Requirements()),
    "custom": Route(_custom, _custom, lambda inputs, outputs: True, Requirements()),
    "bounded": Route(_bounded, _bounded, lambda inputs, outputs: True, Requirements()),
}
"""By name; :data:`export.deform_routes.ROUTES` has those of ONNX."""

PRECISIONS = ("fp32", "fp16")
"""Of weights and of arithmetic; route ``custom`` leaves arithmetic to Core ML."""

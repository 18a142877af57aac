"""How a deformable convolution leaves torch: one meaning, several routes.

- ``native``: the standard operator DeformConv (ONNX operator set 19 and later), which ONNX Runtime runs from 1.25 on.
- ``decomposed``: standard operators only, for any runtime: neighbours are gathered as rows of channels.
- ``custom``: the operators of the library that ``make native`` builds (``export/kernel/``).

Each has two operators. ``direct`` samples the input and applies the weight; ``mixed`` applies the weight first, tap by tap, and samples
the result: sampling acts on space, the weight on channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from onnxscript import opset19
from torch import Tensor, nn
from torch.nn.functional import conv2d, embedding, leaky_relu, pad
from torchvision.ops import deform_conv2d

from export.kernel import LIBRARIES
from model.artifact import Library
from model.deform_conv import TAPS

Operator = Callable[[Tensor, Sequence[Tensor], Tensor, Tensor | None, float | None, float], Tensor]
"""``(x, predicted, weight, bias, offset_limit, slope) -> output``.

``x (1, C, H, W)``; ``predicted``: offsets ``(1, 18, H, W)`` and modulators ``(1, 9, H, W)``, apart or as one tensor;
``weight (O, C, 3, 3)``; ``bias (O,)``; ``slope`` of the LeakyReLU behind, 1 for none; output ``(1, O, H, W)``."""


@dataclass(frozen=True)
class Requirements:
    """What an ONNX file needs."""

    opset: int = 18
    """Operator set: by default the oldest that torch.onnx writes."""
    onnxruntime: str = "1.17"
    """Oldest release that such a file was run on."""
    library: Library | None = None
    """Of operators that ONNX Runtime does not have."""


@dataclass(frozen=True)
class Route:
    """How a route computes a deformable layer."""

    mixed: Operator
    direct: Operator
    gains_from_mixing: Callable[[int, int], bool]
    """Whether ``mixed`` is the faster one, given the layer's inputs and outputs."""
    needs: Requirements
    predict: Callable[[Tensor, nn.Conv2d], Tensor] = lambda x, conv: conv(x)
    """How offsets and modulators are predicted."""
    parted: Operator | None = None
    """``direct`` a part at a time, for wide layers, whose samples take most of the memory otherwise; ``None`` where nothing is gained."""


def _offset_and_mask(predicted: Sequence[Tensor], limit: float | None) -> tuple[Tensor, Tensor]:
    offset, modulator = predicted if len(predicted) == 2 else predicted[0].split((2 * TAPS, TAPS), dim=1)
    return offset if limit is None else offset.clamp(-limit, limit), 2.0 * torch.sigmoid(modulator)


def _activate(x: Tensor, slope: float) -> Tensor:
    return x if slope == 1 else leaky_relu(x, slope)


def _native_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    offset, mask = _offset_and_mask(predicted, limit)
    return _activate(deform_conv2d(x, offset, weight, bias, padding=1, mask=mask), slope)


def _native_parted(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """Some input channels after the other: ONNX Runtime stores the samples of all taps of all channels that it is given."""
    offset, mask = _offset_and_mask(predicted, limit)
    parts = [
        deform_conv2d(channels, offset, taps.contiguous(), None if index else bias, padding=1, mask=mask)
        for index, (channels, taps) in enumerate(zip(x.split(_PART, 1), weight.split(_PART, 1), strict=True))
    ]
    return _activate(reduce(torch.add, parts), slope)


_PART = 16
"""Channels."""


def _native_mixed(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float) -> Tensor:
    """The nine products of the input are sampled by a 1x1 deformable convolution with an offset group for each tap, which adds them up."""
    outputs, channels = weight.shape[:2]
    offset, mask = _offset_and_mask(predicted, limit)
    mixed = conv2d(x, weight.permute(2, 3, 0, 1).reshape(TAPS * outputs, channels, 1, 1))
    place = torch.tensor([value for tap in range(TAPS) for value in (tap // 3 - 1.0, tap % 3 - 1.0)]).view(1, 2 * TAPS, 1, 1)
    add_up = torch.eye(outputs).repeat(1, TAPS).view(outputs, TAPS * outputs, 1, 1)
    return _activate(deform_conv2d(mixed, offset + place, add_up, bias, mask=mask), slope)


def _corners(offset: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where each tap samples, in an image with a border of one zero: ``(H, W, 9)`` each.

    Returns:
        Row and column of the upper left of the four pixels round the sample, and how far below and right of it the sample lies, 0 to 1.
    """
    height, width = offset.shape[2:]
    tap = torch.arange(TAPS)
    corners, fractions = [], []
    for axis, length, steps, place in (
        (0, height, tap // 3 - 1, torch.arange(height).view(-1, 1, 1)),
        (1, width, tap % 3 - 1, torch.arange(width).view(1, -1, 1)),
    ):
        # A sample further out than the border is as zero as one on it.
        point = (offset[0, axis::2].permute(1, 2, 0) + (place + steps).float()).clamp(-1.0, torch.sym_float(length)) + 1
        corner = point.floor().clamp(max=torch.sym_float(length))
        corners.append(corner)
        fractions.append(point - corner)
    return corners[0], corners[1], fractions[0], fractions[1]


def _shares(below: Tensor, right: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the four pixels contribute, row by row; ``(H, W, 9)`` each."""
    weight = mask[0].permute(1, 2, 0)
    lower = below * weight
    upper = weight - lower
    return upper - upper * right, upper * right, lower - lower * right, lower * right


def _decomposed_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float, in_parts: bool = False
) -> Tensor:
    """Four gathers of pixels, multiply, add, then one matrix product; ``in_parts`` for some pixels after the other."""
    outputs, channels = weight.shape[:2]
    height, width = x.shape[2:]
    offset, mask = _offset_and_mask(predicted, limit)
    row, column, below, right = _corners(offset)
    pixels = pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)
    index = (row * (width + 2) + column).to(torch.int32).flatten()
    pieces = _pieces(height * width, TAPS * channels) if in_parts else None
    indices = zip(*(_split(index + step, pieces, TAPS) for step in (0, 1, width + 2, width + 3)), strict=True)
    shares = zip(*(_split(share.reshape(-1, 1), pieces, TAPS) for share in _shares(below, right, mask)), strict=True)
    matrix = weight.permute(2, 3, 1, 0).reshape(TAPS * channels, outputs)
    out = torch.cat(
        [
            sum(share * embedding(index, pixels) for share, index in zip(*piece, strict=True)).view(-1, TAPS * channels) @ matrix
            for piece in zip(shares, indices, strict=True)
        ]
    )
    return _activate(_as_image(out if bias is None else out + bias, height, width), slope)


_GATHERED_BYTES = 2 << 20
"""How much one operator gathers at once, so that it stays in a processor's cache and out of the peak of memory."""


def _decomposed_mixed(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """One gather of all (tap, corner) rows, then a matrix product of a pixel's 36 shares with its 36 rows."""
    outputs, channels = weight.shape[:2]
    height, width = x.shape[2:]
    offset, mask = _offset_and_mask(predicted, limit)
    row, column, below, right = _corners(offset)
    mixed = pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2) @ weight.permute(1, 2, 3, 0).reshape(channels, TAPS * outputs)
    rows = mixed.view(-1, outputs)
    index = ((row * (width + 2) + column) * TAPS + torch.arange(TAPS)).to(torch.int32)
    steps = (0, TAPS, TAPS * (width + 2), TAPS * (width + 3))
    pieces = _pieces(height * width, 4 * TAPS * outputs)
    indices = _split(torch.cat([index + step for step in steps], dim=2).flatten(), pieces, 4 * TAPS)
    shares = _split(torch.cat(_shares(below, right, mask), dim=2).reshape(height * width, 1, 4 * TAPS), pieces, 1)
    out = torch.cat(
        [share @ embedding(index, rows).view(-1, 4 * TAPS, outputs) for share, index in zip(shares, indices, strict=True)]
    ).squeeze(1)
    return _activate(_as_image(out if bias is None else out + bias, height, width), slope)


def _pieces(pixels: int, values: int) -> list[int] | None:
    """For how many pixels at a time to gather so many ``values`` each; ``None`` for all, where their number is not known when the graph is
    made."""
    if not isinstance(pixels, int):
        return None
    count = -(-pixels * values * 4 // _GATHERED_BYTES)
    return [pixels * (index + 1) // count - pixels * index // count for index in range(count)]


def _split(values: Tensor, pieces: Sequence[int] | None, rows: int) -> Sequence[Tensor]:
    """``values`` of all pixels, of which each has so many ``rows``, in pieces of so many pixels."""
    return [values] if pieces is None or len(pieces) == 1 else values.split([rows * pixels for pixels in pieces])


def _as_image(rows: Tensor, height: int, width: int) -> Tensor:
    """``(H * W, O)`` to ``(1, O, H, W)``."""
    return rows.T.reshape(1, -1, height, width).contiguous()  # channels-last strides would survive as operators


def _custom_mixed(x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float) -> Tensor:
    """``acwface::DeformSample``."""
    if not torch.compiler.is_exporting():
        return _decomposed_mixed(x, predicted, weight, bias, limit, slope)
    outputs, channels = weight.shape[:2]
    mixed = x.permute(0, 2, 3, 1) @ weight.permute(1, 2, 3, 0).reshape(channels, TAPS * outputs)
    return _deform("DeformSample", predicted, (mixed,), outputs, bias, limit, slope)


def _custom_direct(
    x: Tensor, predicted: Sequence[Tensor], weight: Tensor, bias: Tensor | None, limit: float | None, slope: float
) -> Tensor:
    """``acwface::DeformConvTiled``."""
    if not torch.compiler.is_exporting():
        return _decomposed_direct(x, predicted, weight, bias, limit, slope)
    return _deform("DeformConvTiled", predicted, (x.permute(0, 2, 3, 1), _by_tap(weight)), len(weight), bias, limit, slope)


def _custom_predict(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``acwface::Conv3x3``."""
    if not torch.compiler.is_exporting():
        return conv(x)
    return _custom("Conv3x3", (x.permute(0, 2, 3, 1), _by_tap(conv.weight), conv.bias), {}, (1, *x.shape[2:], conv.out_channels))


def _by_tap(weight: Tensor) -> Tensor:
    """``(O, C, 3, 3)`` to ``(9, C, O)``."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1)


def _deform(
    operator: str,
    predicted: Sequence[Tensor],
    inputs: Sequence[Tensor],
    outputs: int,
    bias: Tensor | None,
    limit: float | None,
    slope: float,
) -> Tensor:
    together = torch.cat(list(predicted), dim=1).permute(0, 2, 3, 1)
    attributes = {
        "channels": outputs,
        "offset_limit": limit or 0.0,
        "negative_slope": slope,
        "predicted_channels_last": 1,
        "output_channels_last": 1,
    }
    bias = torch.zeros(outputs) if bias is None else bias
    return _custom(operator, (together, *inputs, bias), attributes, (*together.shape[:3], outputs))


def _custom(operator: str, inputs: Sequence[Tensor], attributes: dict[str, float], shape: Sequence[int]) -> Tensor:
    """One of the operators that ``export/kernel/`` defines, in a model that is being exported.

    All of them are channels-last. The transpositions between two that follow each other cancel out.

    Args:
        shape: ``(1, H, W, O)`` of what the operator gives.

    Returns:
        ``(1, O, H, W)``.
    """
    out = torch.onnx.ops.symbolic(f"acwface::{operator}", inputs, attributes, dtype=torch.float32, shape=shape, version=1)
    return out.permute(0, 3, 1, 2)


ROUTES = {
    "native": Route(
        _native_mixed, _native_direct, lambda inputs, outputs: outputs < inputs, Requirements(19, "1.25"), parted=_native_parted
    ),
    "decomposed": Route(
        _decomposed_mixed,
        _decomposed_direct,
        lambda inputs, outputs: outputs < inputs or outputs <= 16,
        Requirements(),
        parted=partial(_decomposed_direct, in_parts=True),
    ),
    "custom": Route(
        _custom_mixed,
        _custom_direct,
        lambda inputs, outputs: outputs < inputs,
        Requirements(library=LIBRARIES["ort"]),
        _custom_predict,
    ),
}


# torch.onnx hands over the arguments of torch.ops.torchvision.deform_conv2d by position, in its order. onnxscript has a translation of its
# own only in releases after the one that the converters pin (https://github.com/microsoft/onnxscript/pull/2923).
def _translate(x, weight, offset, mask, bias, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask):  # noqa: ANN001, ANN202
    return opset19.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        kernel_shape=list(weight.shape[2:]),
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


ONNX_TRANSLATIONS: dict[Any, Callable[..., Any]] = {torch.ops.torchvision.deform_conv2d.default: _translate}
"""For ``torch.onnx.export(custom_translation_table=...)``."""

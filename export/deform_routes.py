"""How a deformable convolution leaves torch: one meaning, several routes.

``native``: the standard operator DeformConv (ONNX operator set 19 and later), which ONNX Runtime runs from 1.25 on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset19

ROUTES = ("native",)


def onnx_translations(route: str) -> dict[Any, Callable[..., Any]]:
    """What ``torch.onnx.export(custom_translation_table=...)`` needs for a route, or for ``none``."""
    return {"none": {}, "native": {torch.ops.torchvision.deform_conv2d.default: _native}}[route]


# torch.onnx hands over the arguments of torch.ops.torchvision.deform_conv2d by position, in its order. onnxscript has a translation of its
# own only in releases after the one that the converters pin (https://github.com/microsoft/onnxscript/pull/2923).
def _native(x, weight, offset, mask, bias, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, use_mask):  # noqa: ANN001, ANN202
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

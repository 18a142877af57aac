"""What a network costs, counted twice: honestly, and as the published table counted it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import thop
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates of one forward pass of one image."""

    params: int
    """Every learnt number."""
    macs: int
    """Convolutions, plus the deformable operator: its tap matrix, and four multiply-accumulates for each bilinear sample.
    Batch norm (folded at export), activations and pooling are not counted."""
    thop_params: int
    thop_macs: int
    """What ``thop`` 0.1.1 prints. It hooks leaf modules: batch norm and pooling count, the deformable operator does not, being a
    function; nor do the weights that only this function reads."""


def measure_cost(model: nn.Module, height: int, width: int) -> Cost:
    """Cost of ``model`` on a ``(1, 3, height, width)`` input. The model is left as it was."""
    model = copy.deepcopy(model).eval()
    image = torch.zeros(1, 3, height, width)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_conv_flops})
    with torch.no_grad(), counter:
        model(image)
    params = sum(parameter.numel() for parameter in model.parameters())
    thop_macs, thop_params = thop.profile(model, (image,), verbose=False)  # last: it leaves buffers behind
    return Cost(params, counter.get_total_flops() // 2, int(thop_params), int(thop_macs))


def _deform_conv_flops(x: tuple[int, ...], weight: tuple[int, ...], offset: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Two operations a multiply-accumulate, from shapes, in the argument order of ``torch.ops.torchvision.deform_conv2d``."""
    batch, in_channels = x[:2]
    positions = batch * offset[2] * offset[3]
    taps = weight[2] * weight[3]
    mixing = positions * math.prod(weight)
    sampling = positions * taps * in_channels * 4
    return 2 * (mixing + sampling)

"""Equalisation of channels, for whoever stores activations as integers with one scale a tensor."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from model.backbones import MobileNetV1
from model.detector import Detector

_WEIGHT_SHARE = 0.2
"""How far a scale spares the weights of a dense convolution behind rather than the activation: the 1 - alpha of SmoothQuant, section 4.
They have a scale for each output, so they bear more. Measured with alpha 0.5 and 0.8 on RetinaFace."""
_SMALLEST = 1e-3
"""Of a channel's range, and of a weight, over the largest: what is as good as unused is not blown up further."""


@torch.no_grad()
def equalise(detector: Detector, images: Iterable[Tensor]) -> None:
    """Give the channels between two convolutions of the backbone ranges that are alike, in place. The function stays, up to rounding.
    Backbones other than MobileNetV1 stay as they are: their blocks have ways around them, or activations with an upper end.

    LeakyReLU commutes with positive factors, so a channel can be divided by one in front of it and multiplied behind, as cross-layer
    equalisation does (Nagel et al. 2019, section 4.1). There the factors come from weights; here from activations, as in SmoothQuant
    (Xiao et al. 2023, section 4), and from those in front of LeakyReLU, which are stored as well: a channel that is always negative leaves
    little behind it, and would be made to fill the range in front. Depthwise convolutions behind have a scale for each channel and do not
    mind; dense ones share the burden.

    Args:
        detector: in eval mode.
        images: ``(1, 3, H, W)`` float32 each, as the network takes them.
    """
    backbone = detector.backbone
    if not isinstance(backbone, MobileNetV1):
        return
    stages = [[module for module in stage.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))] for stage in backbone.children()]
    # What a stage ends with is read by others, too.
    pairs = [(stage[index + 1], stage[index + 2]) for stage in stages for index in range(0, len(stage) - 2, 2)]
    largest = {norm: torch.zeros(norm.num_features) for norm, _ in pairs}

    def observe(norm: nn.BatchNorm2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        largest[norm] = torch.maximum(largest[norm], output.abs().amax((0, 2, 3)))

    handles = [norm.register_forward_hook(observe) for norm, _ in pairs]
    try:
        for image in images:
            backbone(image)
    finally:
        for handle in handles:
            handle.remove()
    for norm, conv in pairs:
        factor = _relative(largest[norm])
        if conv.groups == 1:
            weight = conv.weight.abs()
            factor = _relative(
                factor ** (1 - _WEIGHT_SHARE) / _relative((weight / weight.amax((1, 2, 3), True)).amax((0, 2, 3))) ** _WEIGHT_SHARE
            )
        norm.weight /= factor
        norm.bias /= factor
        conv.weight *= factor.view(-1, 1, 1, 1) if conv.groups > 1 else factor.view(1, -1, 1, 1)


def _relative(values: Tensor) -> Tensor:
    return (values / values.max()).clamp(min=_SMALLEST)

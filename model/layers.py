"""The convolution blocks that backbone, necks and context modules are made of.

All of them are plain ``nn.Sequential``: convolution without bias, batch norm, an activation.
"""

from __future__ import annotations

from torch import nn

from model.deform_conv import DeformConv2d

LEAKY_SLOPE = 0.1
ACTIVATIONS = {
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
}
"""By name; for neck and context see :attr:`model.config.ModelConfig.activation`."""


def conv_bn(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    deform: bool = False,
    rank: int | None = None,
    act: str | None = "leaky_relu",
) -> nn.Sequential:
    """``(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))``.

    Args:
        deform: put a deformable convolution in the place of the 3x3 convolution.
        rank: put a convolution of so many outputs and a pointwise one there, with nothing between.
        act: one of :data:`ACTIVATIONS`, ``None`` to end with batch norm.
    """
    layers: list[nn.Module]
    if deform:
        layers = [DeformConv2d(in_channels, out_channels)]
    elif rank is not None:
        layers = [
            nn.Conv2d(in_channels, rank, kernel, stride, padding=kernel // 2, bias=False),
            nn.Conv2d(rank, out_channels, 1, bias=False),
        ]
    else:
        layers = [nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(out_channels))
    if act is not None:
        layers.append(ACTIVATIONS[act]())
    return nn.Sequential(*layers)


def depthwise_separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """The MobileNetV1 block (Howard et al. 2017, section 3.1): depthwise 3x3, then pointwise 1x1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    )

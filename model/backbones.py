"""Backbones: an image in, one feature map for each stride out."""

from __future__ import annotations

from torch import Tensor, nn

from model.layers import conv_bn, depthwise_separable


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al. 2017) at width 0.25 with LeakyReLU, as RetinaFace uses it.

    ``(N, 3, H, W) -> [(N, 64, H/8, W/8), (N, 128, H/16, W/16), (N, 256, H/32, W/32)]``, each size rounded up.
    """

    out_channels = (64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            conv_bn(3, 8, stride=2),
            depthwise_separable(8, 16),
            depthwise_separable(16, 32, stride=2),
            depthwise_separable(32, 32),
            depthwise_separable(32, 64, stride=2),
            depthwise_separable(64, 64),
        )
        self.stage2 = nn.Sequential(
            depthwise_separable(64, 128, stride=2),
            *(depthwise_separable(128, 128) for _ in range(5)),
        )
        self.stage3 = nn.Sequential(
            depthwise_separable(128, 256, stride=2),
            depthwise_separable(256, 256),
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        stride8 = self.stage1(x)
        stride16 = self.stage2(stride8)
        return [stride8, stride16, self.stage3(stride16)]


BACKBONES = {"mobilenetv1_025": MobileNetV1}

"""Backbones: an image in, one feature map for each stride out."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models import resnet50

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


class InvertedResidual(nn.Module):
    """The MobileNetV2 block (Sandler et al. 2018, section 3.3): 1x1 to more channels, depthwise 3x3, 1x1 back without an activation."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.expand = conv_bn(in_channels, hidden, kernel=1, act="relu6")
        self.depthwise = conv_bn(hidden, hidden, stride=stride, groups=hidden, act="relu6")
        self.project = conv_bn(hidden, out_channels, kernel=1, act=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        projected = self.project(self.depthwise(self.expand(x)))
        return x + projected if self.residual else projected


class MobileNetV2(nn.Module):
    """A MobileNetV2 of few, wide stages, as a detector of small faces uses it.

    ``(N, 3, H, W) -> [(N, 64, H/4, W/4), (N, 128, H/8, W/8), (N, 128, H/16, W/16)]``, each size rounded up. The published table ends with
    one more block, 256 channels at stride 32, that the pyramid does not read; it is left out.

    Args:
        expansions: of each stage. The published table has 2, 2 and 4 (``mobilenetv2``). In the published listing they go into a class
            attribute that no block reads, and every block expands six times (``mobilenetv2_x6``).
    """

    out_channels = (64, 128, 128)

    def __init__(self, expansions: tuple[int, int, int] = (2, 2, 4)) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 64, stride=2, act="relu6"), conv_bn(64, 64, act="relu6"))
        self.stage1, self.stage2, self.stage3 = (
            nn.Sequential(*(InvertedResidual(out if block else into, out, expansion, 1 if block else 2) for block in range(blocks)))
            for into, out, blocks, expansion in zip((64, 64, 128), self.out_channels, (5, 1, 6), expansions, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        stride4 = self.stage1(self.stem(x))
        stride8 = self.stage2(stride4)
        return [stride4, stride8, self.stage3(stride8)]


class ResNet50(nn.Module):
    """torchvision's ResNet-50 (He et al. 2016) without its classifier, under torchvision's names.

    ``(N, 3, H, W) -> [(N, 512, H/8, W/8), (N, 1024, H/16, W/16), (N, 2048, H/32, W/32)]``, each size rounded up.
    """

    out_channels = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        for name, module in resnet50().named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)

    def forward(self, x: Tensor) -> list[Tensor]:
        stride8 = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x))))))
        stride16 = self.layer3(stride8)
        return [stride8, stride16, self.layer4(stride16)]


BACKBONES = {
    "mobilenetv1_025": MobileNetV1,
    "mobilenetv2": MobileNetV2,
    "mobilenetv2_x6": partial(MobileNetV2, (6, 6, 6)),
    "resnet50": ResNet50,
}

"""Necks: feature maps of every stride in, the same number of maps of one width out, coarse information passed down.

All are ``[(N, C_i, H_i, W_i)] -> [(N, channels, H_i, W_i)]`` over three levels, finest first. Upsampling is nearest, to the
exact size of the finer map, so any input size works.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad, relu, silu

from model.layers import conv_bn


def upsample(coarse: Tensor, fine: Tensor) -> Tensor:
    """``coarse`` at the height and width of ``fine``, by nearest neighbours."""
    return interpolate(coarse, size=fine.shape[-2:], mode="nearest")


class FPN(nn.Module):
    """Feature pyramid (Lin et al. 2017) with a 3x3 convolution behind each sum.

    ``laterals[i]`` and ``merges[i]`` belong to level ``i``; the coarsest level has no merge.

    Args:
        in_channels: of each level.
        channels: of what comes out.
        deform: levels whose merge is deformable.
        act: one of :data:`model.layers.ACTIVATIONS`.
        rank: of the finest merge, see :attr:`model.config.ModelConfig.merge_rank`.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, deform: Collection[int] = (), act: str = "leaky_relu", rank: int | None = None
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn(c, channels, kernel=1, act=act) for c in in_channels)
        self.merges = nn.ModuleList(
            conv_bn(channels, channels, deform=level in deform, rank=None if level else rank, act=act)
            for level in range(len(in_channels) - 1)
        )

    def combine(self, level: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        return lateral + upsample(coarse, lateral)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        outputs = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in reversed(range(len(self.merges))):
            outputs[level] = self.merges[level](self.combine(level, outputs[level + 1], outputs[level]))
        return outputs


class WFPN(FPN):
    """Weighted feature pyramid of ACWFace: ``alpha * up + (1 - alpha) * lateral``.

    ``alpha = sigmoid(conv1x1(up))``, one weight a pixel.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, deform: Collection[int] = (), act: str = "leaky_relu", rank: int | None = None
    ) -> None:
        super().__init__(in_channels, channels, deform, act, rank)
        self.alphas = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in in_channels[:-1])

    def combine(self, level: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        upsampled = upsample(coarse, lateral)
        alpha = torch.sigmoid(self.alphas[level](upsampled))
        return alpha * upsampled + (1 - alpha) * lateral


class WeightedMerge(nn.Module):
    """``(N, C, H, W) -> (N, C, H, W)``: Swish and a separable 3x3 convolution for a weighted sum of maps, and its weights."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm = _norm(channels)

    def shares(self) -> Sequence[Tensor]:
        """What each map counts: at least 0, together (nearly) 1. EfficientDet's fast normalised fusion (Tan et al. 2020, section 3.3)."""
        weights = relu(self.weights)
        return (weights / (weights.sum() + 1e-4)).unbind()

    def forward(self, merged: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(silu(merged))))


class BiFPNCell(nn.Module):
    """From the coarsest level to the finest, and back. ``hidden`` is the middle level on the way down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = WeightedMerge(2, channels)
        self.fine = WeightedMerge(2, channels)
        self.middle = WeightedMerge(3, channels)
        self.coarse = WeightedMerge(2, channels)

    def forward(self, down: Sequence[Tensor], up: Sequence[Tensor]) -> list[Tensor]:
        """Three levels, finest first; ``down`` and ``up`` are what either way reads, of ``up`` the last two."""
        own, other = self.hidden.shares()
        hidden = self.hidden(own * down[1] + upsample(other * down[2], down[1]))
        own, other = self.fine.shares()
        fine = self.fine(own * down[0] + upsample(other * hidden, down[0]))
        own, same, other = self.middle.shares()
        middle = self.middle(own * up[1] + same * hidden + halve(fine, hidden, other))
        own, other = self.coarse.shares()
        return [fine, middle, self.coarse(own * up[2] + halve(middle, up[2], other))]


class BiFPN(nn.Module):
    """Bidirectional feature pyramid (EfficientDet, Tan et al. 2020, section 3.2) on three levels, as BiRetina's public code has it.

    ``laterals[:3]`` are what the first cell reads on its way down, ``laterals[3:]`` the middle and coarsest level for its way up.
    """

    cell_count = 3

    def __init__(
        self, in_channels: Sequence[int], channels: int, deform: Collection[int] = (), act: str = "leaky_relu", rank: int | None = None
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Sequential(nn.Conv2d(c, channels, 1), _norm(channels)) for c in (*in_channels, *in_channels[1:]))
        self.cells = nn.ModuleList(BiFPNCell(channels) for _ in range(self.cell_count))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        down = [lateral(feature) for lateral, feature in zip(self.laterals, (*features, *features[1:]), strict=True)]
        up = [down[0], *down[3:]]
        for cell in self.cells:
            down = up = cell(down, up)
        return down


def halve(fine: Tensor, coarse: Tensor, share: Tensor) -> Tensor:
    """``share`` of ``fine`` at the height and width of ``coarse``, half of its own: maxima of 3x3, zeros outside, which count."""
    (height, width), (rows, columns) = fine.shape[-2:], coarse.shape[-2:]
    # An odd side has a zero in front, too; said by what the coarser map measures, which tracing with free sizes can follow.
    padded = pad(fine, (2 * columns - width, 1, 2 * rows - height, 1))
    # Weighed between the two: onnxsim and ONNX Runtime take padding in front of a MaxPool for its own, which is with minus infinity.
    return max_pool2d(share * padded, 3, 2)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


NECKS = {"fpn": FPN, "wfpn": WFPN, "bifpn": BiFPN}

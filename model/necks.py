"""Necks: feature maps of every stride in, the same number of maps of one width out, coarse information passed down.

Both are ``[(N, C_i, H_i, W_i)] -> [(N, channels, H_i, W_i)]`` over three levels, finest first. Upsampling is nearest, to the
exact size of the finer map, so any input size works.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

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
        rank: of the finest merge, see :attr:`model.config.ModelConfig.merge_rank`.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, deform: Collection[int] = (), rank: int | None = None) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn(c, channels, kernel=1) for c in in_channels)
        self.merges = nn.ModuleList(
            conv_bn(channels, channels, deform=level in deform, rank=None if level else rank) for level in range(len(in_channels) - 1)
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

    def __init__(self, in_channels: Sequence[int], channels: int, deform: Collection[int] = (), rank: int | None = None) -> None:
        super().__init__(in_channels, channels, deform, rank)
        self.alphas = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in in_channels[:-1])

    def combine(self, level: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        upsampled = upsample(coarse, lateral)
        alpha = torch.sigmoid(self.alphas[level](upsampled))
        return alpha * upsampled + (1 - alpha) * lateral


NECKS = {"fpn": FPN, "wfpn": WFPN}

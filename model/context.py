"""Context modules: stacked 3x3 convolutions that widen the receptive field of one level, ``(N, C, H, W) -> (N, C, H, W)``.

Branch ``i`` sees ``2 * i + 3`` pixels a side; each deeper branch starts from the activated hidden layer of the one before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from model.layers import ACTIVATIONS, conv_bn


class SSH(nn.Module):
    """Context module of SSH (Najibi et al. 2017, section 3.3) as RetinaFace has it: half, a quarter and a quarter of the channels."""

    def __init__(self, channels: int, fusion: str, deform: bool, act: str) -> None:
        super().__init__()
        quarter = channels // 4
        self.branch1 = conv_bn(channels, channels // 2, deform=deform, act=None)
        self.hidden2 = conv_bn(channels, quarter, deform=deform, act=act)
        self.branch2 = conv_bn(quarter, quarter, deform=deform, act=None)
        self.hidden3 = conv_bn(quarter, quarter, deform=deform, act=act)
        self.branch3 = conv_bn(quarter, quarter, deform=deform, act=None)

    def forward(self, x: Tensor) -> Tensor:
        hidden2 = self.hidden2(x)
        hidden3 = self.hidden3(hidden2)
        return relu(torch.cat([self.branch1(x), self.branch2(hidden2), self.branch3(hidden3)], dim=1))


class SCM(nn.Module):
    """Context module of ACWFace: four branches of a quarter of the channels each, then a 3x3 convolution over all of them."""

    def __init__(self, channels: int, fusion: str, deform: bool, act: str) -> None:
        super().__init__()
        quarter = channels // 4
        self.branch1 = conv_bn(channels, quarter, deform=deform, act=None)
        self.hidden2 = conv_bn(channels, quarter, deform=deform, act=act)
        self.branch2 = conv_bn(quarter, quarter, deform=deform, act=None)
        self.hidden3 = conv_bn(quarter, quarter, deform=deform, act=act)
        self.branch3 = conv_bn(quarter, quarter, deform=deform, act=None)
        self.hidden4 = conv_bn(quarter, quarter, deform=deform, act=act)
        self.branch4 = conv_bn(quarter, quarter, deform=deform, act=None)
        self.fusion = _fusion(channels, fusion)

    def forward(self, x: Tensor) -> Tensor:
        hidden2 = self.hidden2(x)
        hidden3 = self.hidden3(hidden2)
        hidden4 = self.hidden4(hidden3)
        return self.fusion(torch.cat([self.branch1(x), self.branch2(hidden2), self.branch3(hidden3), self.branch4(hidden4)], dim=1))


class SharedSCM(nn.Module):
    """SCM with one layer of twice the outputs where a branch and the next hidden layer read the same map.

    The same function as :class:`SCM` where nothing is deformable; deformable layers share their offsets, four predictors instead of seven.
    """

    def __init__(self, channels: int, fusion: str, deform: bool, act: str) -> None:
        super().__init__()
        quarter = channels // 4
        self.pairs = nn.ModuleList(conv_bn(width, 2 * quarter, deform=deform, act=None) for width in (channels, quarter, quarter))
        """Branch ``i`` and the hidden layer of branch ``i + 1``, in this order."""
        self.branch4 = conv_bn(quarter, quarter, deform=deform, act=None)
        self.act = ACTIVATIONS[act]()
        self.act.inplace = False  # it is given a part of a larger map
        self.fusion = _fusion(channels, fusion)

    def forward(self, x: Tensor) -> Tensor:
        branches = []
        for pair in self.pairs:
            branch, hidden = pair(x).chunk(2, dim=1)
            branches.append(branch)
            x = self.act(hidden)
        return self.fusion(torch.cat([*branches, self.branch4(x)], dim=1))


def _fusion(channels: int, kind: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels if kind == "depthwise" else 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


CONTEXTS = {"ssh": SSH, "scm": SCM, "scm_shared": SharedSCM}

"""EDAM's spatial attention: ``split-attention`` and ``pool-channels``."""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from export.rewrites.heads import DeployModel
from export.rewrites.replace import replace_modules
from model.attention import ChannelAttention, ChannelPool


class RowConv(nn.Module):
    """``(N, C, H, W) -> (N, 1, H, W)``, N = 1: a convolution with one output channel, odd kernel k > 1 and padding ``k // 2``.

    Runtimes compute 8 or 16 output channels at the price of one. So each row of the kernel becomes an output channel of a convolution
    with a ``1 x k`` kernel, and the k maps are added up, each moved to where its row belongs.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # The last row first: see below.
        self.weight = nn.Parameter(conv.weight.detach().flip(2).movedim(2, 0).squeeze(1).unsqueeze(2))
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        count, size = len(self.weight), self.weight.shape[3]
        half = size // 2
        maps = conv2d(x, self.weight, padding=(0, half))[0]
        # Map i, of kernel row k - 1 - i, is to be moved down by i - k // 2. With k - 1 rows of zeros behind each, all lie in one line that
        # is read again in steps that are a row shorter than what is between their beginnings.
        line = pad(maps, (0, 0, 0, size - 1)).flatten()
        step = (height + size - 2) * width
        moved = line[half * width : half * width + count * step].view(count, step)
        return (torch.ones(1, count) @ moved)[:, : height * width].view(1, 1, height, width) + self.bias


class BlockConv(nn.Module):
    """The same in two convolutions with kernels of ``sqrt(k)`` a side, for a square k: accelerators refuse large kernels.

    The kernel's blocks become output channels of the first; the second adds its maps up, each moved to where its block belongs: half as
    much work again, for two input channels.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.block = math.isqrt(conv.kernel_size[0])
        blocks = conv.weight.detach().unflatten(3, (-1, self.block)).unflatten(2, (-1, self.block))  # (1, C, row, y, column, x)
        self.weight = nn.Parameter(blocks.permute(0, 2, 4, 1, 3, 5).flatten(0, 2))
        self.bias = conv.bias
        place = torch.eye(self.block**2).view(1, -1, self.block, self.block)
        self.register_buffer("place", place)

    def forward(self, x: Tensor) -> Tensor:
        reach = self.block**2 // 2
        return conv2d(conv2d(x, self.weight, padding=reach), self.place, self.bias, dilation=self.block)


def split_attention_into_blocks(model: DeployModel) -> None:
    """``split-attention`` for accelerators; see :class:`BlockConv`."""
    replace_modules(model, nn.Conv2d, lambda conv: BlockConv(conv) if conv.kernel_size == (49, 49) else conv)


def split_attention(model: DeployModel) -> None:
    """``split-attention``: the 49x49 convolution, which has one output channel, fills all lanes of a SIMD unit; see :class:`RowConv`."""
    replace_modules(model, nn.Conv2d, lambda conv: RowConv(conv) if conv.kernel_size == (49, 49) else conv)


class SplitChannelPool(nn.Module):
    """:class:`model.attention.ChannelPool` in operators that walk through memory once: maxima of groups of channels, a matrix product.

    ONNX Runtime's reductions over the second axis take one column after the other: at 64x80x80 the maximum takes 0.36 ms by one
    ReduceMax and 0.14 so, the mean 0.36 and 0.03.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        x = x.flatten(2)
        largest = reduce(torch.maximum, x.chunk(4, dim=1)).amax(dim=1, keepdim=True)
        mean = torch.full((1, channels), 1 / channels) @ x
        return torch.cat([largest, mean], dim=1).unflatten(2, (height, width))


class StackedChannelAttention(nn.Module):
    """:class:`model.attention.ChannelAttention` with average and maximum as two images of one batch, of one image: half the operators."""

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        self.conv = attention.conv

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))])
        squashed = torch.sigmoid(self.conv(pooled.unsqueeze(1))).sum(dim=0)
        return torch.sigmoid(squashed)[..., None, None]


def pool_channels(model: DeployModel) -> None:
    """``pool-channels``: see :class:`SplitChannelPool` and :class:`StackedChannelAttention`."""
    replace_modules(model, ChannelPool, lambda pool: SplitChannelPool())
    replace_modules(model, ChannelAttention, StackedChannelAttention)

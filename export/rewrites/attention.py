"""EDAM's spatial attention: ``split-attention`` and ``pool-channels``."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from export.rewrites.heads import DeployModel
from export.rewrites.replace import replace_modules
from model.attention import ChannelAttention, ChannelPool

BLOCK = (8, 4)
"""Rows and columns of outputs that ONNX Runtime should compute at once, as so many channels."""


class BlockConv(nn.Module):
    """``(N, C, H, W) -> (N, 1, H, W)``: a convolution with one output channel, odd kernel k and padding ``k // 2``.

    A block of outputs becomes the channels of a strided convolution whose kernel is the old one, shifted for each of them: 1.2 times the
    arithmetic, but runtimes compute 16 output channels at the price of one. The shifted copies are made in the graph, where a runtime
    does it once on loading: stored, they would triple the size of the model file.
    """

    def __init__(self, conv: nn.Conv2d, block: tuple[int, int]) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        half = self.weight.shape[-1] // 2
        rows, columns = self.block
        missing = [-length % block for length, block in ((height, rows), (width, columns))]
        padded = pad(x, (half, half + missing[1], half, half + missing[0]))
        blocks = conv2d(padded, self._shifted_kernels(), self.bias.expand(rows * columns), stride=self.block)
        # (N, rows * columns, H / rows, W / columns) to (N, 1, H, W)
        out = blocks.unflatten(1, self.block).permute(0, 3, 1, 4, 2).flatten(1, 2).flatten(2)
        return out.unsqueeze(1)[..., :height, :width]

    def _shifted_kernels(self) -> Tensor:
        """``(rows * columns, C, k + rows - 1, k + columns - 1)``: kernel (i, j) is moved down by i and to the right by j."""
        rows, columns = self.block
        kernels = _shifted(self.weight, columns).movedim(2, -1)  # (1, C, columns, k + columns - 1, k)
        return _shifted(kernels, rows).permute(4, 2, 0, 1, 5, 3).flatten(0, 2)


def _shifted(kernel: Tensor, copies: int) -> Tensor:
    """``(..., k)`` to ``(..., copies, k + copies - 1)``: copy i is moved to the right by i.

    Copies with ``copies`` zeros behind them, laid end to end, are read in steps that are one shorter. As an Expand, because that is what
    onnxsim does not fold where it makes a large constant.
    """
    length = kernel.shape[-1] + copies
    line = pad(kernel, (0, copies)).unsqueeze(-2).expand(*kernel.shape[:-1], copies, length).flatten(-2)
    return line[..., : copies * (length - 1)].unflatten(-1, (copies, length - 1))


def split_attention(model: DeployModel) -> None:
    """``split-attention``: the 49x49 convolution, which has one output channel, fills all lanes of a SIMD unit; see :class:`BlockConv`."""
    replace_modules(model, nn.Conv2d, lambda conv: BlockConv(conv, model.attention_block) if conv.kernel_size == (49, 49) else conv)


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

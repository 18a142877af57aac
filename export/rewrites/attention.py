"""EDAM's spatial attention: ``split-attention`` and ``pool-channels``."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle, pixel_unshuffle

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


class LineConv(nn.Module):
    """``(N, C, H, W) -> (N, R, H, W)``: a convolution with a ``1 x k`` or ``k x 1`` kernel, odd k, padding ``k // 2``, and few output
    channels.

    Lines of 16 pixels become channels, for the same reason as in :class:`RowConv`: a convolution in steps of 16 pixels, whose kernel is 15
    longer, gives 16 neighbours at once. A third more arithmetic; at 2x80x80 and k = 49 ONNX Runtime takes a fifth of the time.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.axis = 3 if conv.kernel_size[0] == 1 else 2
        taps = conv.weight.detach().flatten(2)
        # Copy i is for pixel i of a line.
        copies = torch.stack([pad(taps, (i, _LINE - 1 - i)) for i in range(_LINE)], dim=1)
        self.weight = nn.Parameter(copies.flatten(0, 1).unsqueeze(5 - self.axis))
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        size, half = x.shape[self.axis], (self.weight.shape[self.axis] - _LINE) // 2
        border, stride = (half, half + _LINE - 1), (1, _LINE)
        if self.axis == 2:
            border, stride = (0, 0, *border), stride[::-1]
        lines = conv2d(pad(x, border), self.weight, stride=stride).unflatten(1, (-1, _LINE))
        out = lines.movedim(2, self.axis + 1).flatten(self.axis, self.axis + 1)
        out = out[..., :size] if self.axis == 3 else out[:, :, :size]
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)


_LINE = 16


def split_attention(model: DeployModel) -> None:
    """``split-attention``: convolutions of 49 pixels, which have few output channels, fill all lanes of a SIMD unit; see :class:`RowConv`,
    and :class:`LineConv` for kernels that are products of a row and a column."""
    _replace_large(model, RowConv)
    replace_modules(model, nn.Conv2d, lambda conv: LineConv(conv) if sorted(conv.kernel_size) == [1, 49] else conv)


class BlockConv(nn.Module):
    """``(N, C, H, W) -> (N, 1, H, W)``: a convolution with one output channel, odd kernel k and padding ``k // 2``, a multiple of 4.

    Blocks of 4x4 pixels become channels, at a quarter of the height and width, and the kernel one of a quarter of its side: 13x13 for
    k = 49, from 16 C to 16 channels. A sixth more arithmetic, in operators and sizes that accelerators are made for; but 16 copies of the
    kernel are stored.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        kernel = conv.weight.detach()[0]
        # Copy (i, j) is for the pixel in row i and column j of a block: it is moved down by i and to the right by j.
        copies = [pad(kernel, (j, _BLOCK - 1 - j, i, _BLOCK - 1 - i)) for i in range(_BLOCK) for j in range(_BLOCK)]
        self.weight = nn.Parameter(pixel_unshuffle(torch.stack(copies), _BLOCK))
        self.bias = conv.bias
        # pixel_unshuffle as a convolution: converters have no trouble with that.
        self.to_blocks = nn.Parameter(torch.eye(self.weight.shape[1]).view(-1, conv.in_channels, _BLOCK, _BLOCK))

    def forward(self, x: Tensor) -> Tensor:
        below, right = (-length % _BLOCK for length in x.shape[2:])
        blocks = conv2d(pad(x, (0, right, 0, below)), self.to_blocks, stride=_BLOCK)
        out = conv2d(blocks, self.weight, self.bias.expand(len(self.weight)), padding=self.weight.shape[-1] // 2)
        out = pixel_shuffle(out, _BLOCK)
        if not below and not right:
            return out
        # What was added is cut off by a convolution, too: behind a slice onnx2tf takes rows for channels.
        return conv2d(out, pad(torch.ones(1, 1, 1, 1), (0, right, 0, below)))


_BLOCK = 4


def block_attention(model: DeployModel) -> None:
    """``split-attention`` for phones: see :class:`BlockConv`."""
    _replace_large(model, BlockConv)


def _replace_large(model: DeployModel, replacement: Callable[[nn.Conv2d], nn.Module]) -> None:
    replace_modules(model, nn.Conv2d, lambda conv: replacement(conv) if conv.kernel_size == (49, 49) else conv)


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

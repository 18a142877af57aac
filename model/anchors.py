"""Anchors: the boxes that the network's outputs are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)
def make_anchors(height: int, width: int, strides: tuple[int, ...], min_sizes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Anchors of an image (RetinaFace, Deng et al. 2020, section 3.4; square only).

    Args:
        height, width: of the network's input, pixels; any positive size.
        strides: pixels per cell of each level.
        min_sizes: anchor sides of each level, pixels.

    Returns:
        ``(A, 4)`` float32, read-only: centre x, centre y, width, height in pixels of the network's input. Levels in order, cells row
        by row, sizes of a cell next to each other.
    """
    anchors = np.concatenate([_level(height, width, stride, sizes) for stride, sizes in zip(strides, min_sizes, strict=True)])
    anchors.flags.writeable = False  # shared by all callers through the cache
    return anchors


def _level(height: int, width: int, stride: int, sizes: Sequence[int]) -> np.ndarray:
    rows, columns = -(-height // stride), -(-width // stride)
    y, x, side = np.meshgrid((np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, np.asarray(sizes), indexing="ij")
    return np.stack([x, y, side, side], axis=-1).reshape(-1, 4).astype(np.float32)

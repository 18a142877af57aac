"""Weights as integers."""

from __future__ import annotations

import numpy as np


def quantize_weight(weight: np.ndarray, axis: int, smallest: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """int8 values of -127 to 127 and the float32 scale of each channel of ``axis``, at least ``smallest``."""
    scale = np.abs(weight).max(tuple(other for other in range(weight.ndim) if other != axis), keepdims=True) / 127
    scale = np.where(scale == 0, 1, np.maximum(scale, smallest)).astype(np.float32)
    return np.round(weight / scale).astype(np.int8), scale.reshape(-1)

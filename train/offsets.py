"""Are the offsets of a deformable network really used? Their distribution, layer by layer, and the network without them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.deform_conv import DeformConv2d
from model.detector import Detector
from model.errors import UserError
from train.deform_kernel import cpu_operator

NEAR_LIMIT = 0.99
"""An offset of at least so much of the limit counts as clamped."""


@dataclass(frozen=True)
class LayerOffsets:
    """Offsets of one layer over all taps, directions, places and photographs, pixels of its feature map."""

    layer: str
    mean: float
    """Of their absolute values."""
    percentile_95: float
    largest: float
    clamped: float
    """Share at the offset limit; 0 without one."""
    mask_spread: float
    """Standard deviation of the mask, which is 1 everywhere in a fresh layer."""


def measure_offsets(detector: Detector, inputs: Iterable[Tensor]) -> list[LayerOffsets]:
    """Run the network on ``(1, 3, H, W)`` inputs and look at what its deformable layers ask for.

    Raises:
        UserError: the network has no deformable layer.
    """
    layers = {name: module for name, module in detector.named_modules() if isinstance(module, DeformConv2d)}
    if not layers:
        raise UserError(f"{detector.config.variant} has no deformable layer")
    seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in layers}

    def watch(name: str) -> None:
        def operator(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
            seen[name].append((offset.abs().flatten().numpy(), mask.flatten().numpy()))
            return cpu_operator()(x, offset, mask, weight)

        layers[name].training_operator = operator

    detector.eval().use_training_forms(cpu_operator())
    for name in layers:
        watch(name)
    try:
        with torch.inference_mode():
            for image in inputs:
                detector(image)
    finally:
        detector.use_training_forms(None)
    return [
        _summarise(name, *(np.concatenate(values) for values in zip(*seen[name], strict=True)), detector.config.offset_limit)
        for name in layers
    ]


def _summarise(name: str, sizes: np.ndarray, masks: np.ndarray, limit: float | None) -> LayerOffsets:
    clamped = 0.0 if limit is None else float((sizes >= NEAR_LIMIT * limit).mean())
    return LayerOffsets(name, float(sizes.mean()), float(np.percentile(sizes, 95)), float(sizes.max()), clamped, float(masks.std()))


def without_offsets(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """The deformable operator with every offset forced to 0; the mask stays."""
    return cpu_operator()(x, torch.zeros_like(offset), mask, weight)


def print_offsets(rows: Iterable[LayerOffsets]) -> None:
    print(f"{'layer':24}{'mean |offset|':>14}{'95 %':>8}{'largest':>9}{'clamped':>9}{'mask std':>10}")
    for row in rows:
        print(f"{row.layer:24}{row.mean:>14.3f}{row.percentile_95:>8.2f}{row.largest:>9.2f}{row.clamped:>8.1%}{row.mask_spread:>10.3f}")

"""The deformable layers of ``acwface_dcn`` and the convolutions before them, for measurements."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Of a layer."""

    side: int
    """Of the square feature map, pixels."""
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.side}x{self.side}, {self.inputs} to {self.outputs}"


SHAPES = [
    Shape(side, inputs, outputs)
    for side in (80, 40, 20, 10)  # strides 8, 16 and 32 at 640x640 and at 320x320
    for inputs, outputs in ((64, 16), (16, 16), (64, 64))
    if outputs == 16 or side > 10  # the two merges are at strides 8 and 16
]

PREDICTIONS = [
    Shape(side, inputs, outputs)
    for side in (80, 40, 20, 10)
    for inputs in (64, 16)
    for outputs in (27, 54)  # of one layer, and of two that read the same input
]

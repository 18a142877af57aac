"""What the formats have in common: a network that is watched in float and written in integers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from model.errors import UserError

if TYPE_CHECKING:  # they import torch
    import numpy as np

    from model.artifact import Artifact, RuntimeSpec
    from model.checkpoint import Checkpoint
    from quantize.calibration import Range
    from runtime_bench.detect import FaceDetector

FIRST = 9
"""Layers that are better kept in float: few channels, on maps of more than an eighth of the input's size and up to the first of that size.
Integer kernels waste their lanes on them, and what they lose, everything behind them has lost. RetinaFace with the first 5, 9 and 11 in
float takes 14.9, 14.2 and 14.4 ms in ONNX Runtime, 11.4, 11.8 and 12.2 in LiteRT; there it agrees with FP32 on training photographs that it
was not calibrated with by 98.9, 99.4 and 99.4 % (:func:`quantize.sensitivity.agreement`). So have the heads, whose outputs share one
scale."""


WEIGHTS_ONLY = "w8"
PRECISIONS = {
    "int8": "weights and activations of 8 bits, float32 in and out",
    "int8io": "the same with 8 bits in and out",
    "int16": "weights of 8 bits, activations of 16, float32 in and out",
    WEIGHTS_ONLY: "weights of 8 bits, activations in float",
}
"""Of quantized artifacts."""


class Int8Network(Protocol):
    """One format's way to INT8, made from a checkpoint whose channels are equalised."""

    layout: str
    """Of the input, ``NCHW`` or ``NHWC``."""
    precisions: Mapping[str, RuntimeSpec]
    """Which of :data:`PRECISIONS` it is made in, and what each needs."""
    layers: tuple[str, ...]
    """Convolutions and matrix products that become integer unless they are kept, in the order in which they run."""
    kept: tuple[str, ...]
    """Those that are better kept: nothing is gained by making them integer."""

    def activations(self, tensors: Iterable[np.ndarray]) -> Iterator[Iterable[tuple[str, np.ndarray]]]:
        """For each ``(1, 3, H, W)`` input every float activation that may become integer, with its name."""
        ...

    def write(
        self,
        path: Path,
        ranges: Mapping[str, Range] | None,
        kept: Collection[str] = (),
        only: Collection[str] | None = None,
        precision: str = "int8",
    ) -> None:
        """Write the quantized model.

        Args:
            path: of the file.
            ranges: of the activations, by name; ``None`` for weights alone.
            kept: layers that stay in float; in a TFLite file of route ``bounded``, layers whose activations have 16 bits.
            only: layers that become integer, all else stays; ``None`` for all but the kept ones.
            precision: one of :attr:`precisions`.
        """
        ...

    def detectors(self, artifact: Artifact) -> Iterable[FaceDetector]:
        """Every way to run what was written."""
        ...


def int8_network(format: str, checkpoint: Checkpoint, dcn: str, size: tuple[int, int] | None) -> Int8Network:
    """Convert a checkpoint for one of the formats.

    Raises:
        UserError: INT8 is not made for this format, or a converter failed.
    """
    if format == "onnx":
        from quantize.onnx_int8 import OnnxInt8

        return OnnxInt8(checkpoint, dcn, size)
    if format == "tflite":
        from quantize.tflite_int8 import TfliteInt8

        return TfliteInt8(checkpoint, dcn, size)
    if format == "coreml":
        from quantize.coreml_int8 import CoremlInt8

        return CoremlInt8(checkpoint, dcn, size)
    raise UserError(f"INT8 is not made for {format} artifacts; there are onnx, tflite and coreml")

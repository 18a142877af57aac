"""FP32 artifact to INT8 artifact."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from msgspec import Struct

from export.package import Limits, Progress, Target, package
from export.rewrites.equalise import equalise
from model.artifact import Artifact, Parity, artifact_name
from model.checkpoint import Checkpoint, load_checkpoint
from model.errors import UserError
from model.files import write_json
from quantize.calibration import CalibrationSet, Histogram, Range, find_ranges, observe
from quantize.network import PRECISIONS, WEIGHTS_ONLY, Int8Network, int8_network

RECORD = "quantization.json"
"""In the artifact: how it was made."""
DEFAULT_SIZE = (640, 640)
"""What photographs are letterboxed into for networks that take any size."""
_EQUALISED_ON = 32
"""Photographs."""
_LIMITS = Limits(scores=0.9, pixels=float("inf"))
"""Against files that are broken; what INT8 costs, accuracy says."""


class Record(Struct, frozen=True):
    """``quantization.json``."""

    method: str
    kept: tuple[str, ...]
    """Layers in float."""
    photographs: int
    photographs_sha256: str
    """See :meth:`quantize.calibration.CalibrationSet.digest`."""
    never_reached: tuple[str, ...]
    """Activations that were zero on all photographs: their scales are a guess."""


@dataclass(frozen=True)
class Calibrated:
    """A network that has been watched, ready to be written in integers."""

    artifact: Artifact
    """FP32, where it comes from."""
    checkpoint: Checkpoint
    """As it was trained."""
    network: Int8Network
    photographs: CalibrationSet
    histograms: Mapping[str, Histogram]

    def inputs(self, count: int) -> list[np.ndarray]:
        """The first so many photographs, ``(1, 3, H, W)`` float32 each."""
        few = CalibrationSet(self.photographs.photographs[:count], 0)
        return list(few.tensors(self.artifact.manifest.input, self.artifact.manifest.input.size or DEFAULT_SIZE))

    def name(self, precision: str) -> str:
        """Of the artifact that becomes of it."""
        manifest = self.artifact.manifest
        return artifact_name(manifest.variant, manifest.dcn, precision, manifest.input.size, manifest.format)

    def ranges(self, method: str, precision: str) -> dict[str, Range] | None:
        """Of the activations; ``None`` where they stay in float."""
        return None if precision == WEIGHTS_ONLY else find_ranges(self.histograms, method)

    def record(self, method: str, kept: Sequence[str]) -> Record:
        dead = tuple(name for name, histogram in self.histograms.items() if not histogram.reached)
        return Record(method, tuple(kept), len(self.photographs.photographs), self.photographs.digest(), dead)


def require_quantizable(artifact: Artifact) -> None:
    """Raise a :class:`UserError` for an artifact that is not FP32, or of a route that has no INT8."""
    precision = artifact.manifest.precision
    if precision != "fp32":
        already = "it is quantized already" if precision in PRECISIONS else f"it is {precision}"
        raise UserError(f"{artifact.path}: {already}; quantize the FP32 artifact of the same network")
    if (artifact.manifest.format, artifact.manifest.dcn) == ("coreml", "custom"):
        raise UserError(
            f"{artifact.path} is in Core ML's older format, which knows no integer activations; quantize route decomposed or bounded"
        )


def calibrate(artifact: Artifact, photographs: CalibrationSet, progress: Progress, precisions: Sequence[str] = ()) -> Calibrated:
    """Equalise a network's channels, convert it, and watch its activations, which takes minutes.

    Raises:
        UserError: the artifact's format is not made in one of ``precisions``, or a converter failed.
    """
    manifest = artifact.manifest
    size = manifest.input.size or DEFAULT_SIZE
    checkpoint = load_checkpoint(artifact.reference_path)
    equalised = copy.deepcopy(checkpoint.detector)
    few = CalibrationSet(photographs.photographs[:_EQUALISED_ON], 0)
    equalise(equalised, (torch.from_numpy(np.ascontiguousarray(tensor)) for tensor in few.tensors(manifest.input, size)))
    progress("converting")
    network = int8_network(manifest.format, replace(checkpoint, detector=equalised), manifest.dcn, manifest.input.size)
    for precision in precisions:
        if precision not in network.precisions:
            raise UserError(
                f"{artifact.name}: {manifest.format} of route {manifest.dcn} is not made in {precision}; "
                f"there are {', '.join(network.precisions)}"
            )
    progress("calibrating")
    tensors = photographs.tensors(manifest.input, size)
    return Calibrated(artifact, checkpoint, network, photographs, observe(network.activations(tensors), len(photographs.photographs)))


def write_int8(calibrated: Calibrated, method: str, kept: Sequence[str], out: Path, progress: Progress, precision: str = "int8") -> Parity:
    """Write a quantized artifact, as :func:`export.package.package` does, with :data:`RECORD` in it. ``precision`` is one of
    :attr:`quantize.network.Int8Network.precisions`.

    Raises:
        UserError: a layer that is to be kept is not there, or the runtime refuses the file. Then nothing is written.
    """
    network, manifest = calibrated.network, calibrated.artifact.manifest
    unknown = sorted(set(kept) - set(network.layers))
    if unknown:
        raise UserError(f"no layer {unknown[0]!r} in {calibrated.artifact.name}; python -m quantize sensitivity lists its layers")
    target = Target(
        manifest.format,
        precision,
        manifest.dcn,
        manifest.input.size,
        network.layout,
        network.precisions[precision],
        _LIMITS,
        Path(manifest.model.name).suffix[1:],
        "int8" if precision == "int8io" else manifest.input.dtype,
        "int8" if precision == "int8io" else "float32",
    )

    def make_model(path: Path) -> None:
        network.write(path, calibrated.ranges(method, precision), kept, precision=precision)
        write_json(path.parent / RECORD, calibrated.record(method, kept))

    return package(calibrated.checkpoint, target, out, make_model, network.detectors, progress)

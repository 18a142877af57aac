"""What the exports of all formats share: a model file is made, run, compared with torch, and only then becomes an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from export.model_card import model_card
from export.parity import measure_parity, require_parity
from model.anchors import make_anchors
from model.artifact import (
    MODEL_CARD,
    REFERENCE,
    AnchorSpec,
    Artifact,
    InputTensor,
    Manifest,
    OutputTensor,
    Parity,
    RuntimeSpec,
    describe_file,
    write_manifest,
    writing_artifact,
)
from model.checkpoint import Checkpoint, save_checkpoint
from model.config import ModelConfig
from model.errors import UserError
from model.postprocess import Thresholds
from runtime_bench.detect import FaceDetector, torch_detector
from runtime_bench.samples import sample_photographs

_OUTPUTS = {"scores": (), "box_deltas": (4,), "landmark_deltas": (10,)}

STRIDE = 32
"""Of the coarsest level. TFLite and Core ML files have sides that are multiples of it: every level is twice the next one, which is as
their converters want it."""

INPUT_DESCRIPTION = "Photograph, letterboxed: scaled to fit, in the upper left corner, the rest in the colour of the mean"
OUTPUT_DESCRIPTIONS = {
    "scores": "Face probability of each anchor, 0 to 1",
    "box_deltas": "Centre and size of each anchor's box, coded as detector.json says",
    "landmark_deltas": "x and y of each anchor's left eye, right eye, nose, left and right corner of the mouth, coded likewise",
}
LICENCE = "Weights trained on WIDER FACE are for research use"
"""These three are what files say of themselves, where their format has room for it."""

Progress = Callable[[str], None]
"""Called with the name of each stage as it begins."""


def outputs_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Meaning, and name, of each output in order, with the shape behind batch and anchor."""
    return {name: rest for name, rest in _OUTPUTS.items() if config.landmarks or name != "landmark_deltas"}


class Limits(NamedTuple):
    """How far an artifact may be from torch on real photographs."""

    scores: float
    pixels: float
    """Of boxes and landmarks."""


class Target(NamedTuple):
    """What is made of a checkpoint."""

    format: str
    precision: str
    dcn: str
    """Route of the deformable layers, ``none`` for a network without."""
    size: tuple[int, int] | None
    """Height and width of the input in pixels, ``None`` for any."""
    layout: str
    """``NCHW`` or ``NHWC``."""
    runtime: RuntimeSpec
    limits: Limits
    suffix: str | None = None
    """Of the model file, where it is not the format's name."""
    dtype: Literal["float32", "image", "int8"] = "float32"
    """Of the input, see :class:`model.artifact.InputTensor`."""
    output_dtype: Literal["float32", "int8"] = "float32"


def package(
    checkpoint: Checkpoint,
    target: Target,
    out: Path,
    make_model: Callable[[Path], None],
    detectors: Callable[[Artifact], Iterable[FaceDetector]],
    progress: Progress,
) -> Parity:
    """Write an artifact.

    Args:
        checkpoint: what is exported, and judged against.
        target: what it becomes.
        out: the artifact's folder; an earlier artifact there is replaced.
        make_model: writes the model file to the path that it is given, beside the reference.
        detectors: every way to run the artifact that has to agree with torch.
        progress: see :data:`Progress`.

    Returns:
        The measured parity, of the worst detector, which ``detector.json`` holds too.

    Raises:
        UserError: a model differs from torch by more than the limits, or ``make_model`` or a runtime failed. Then nothing is written.
    """
    config = checkpoint.detector.config
    with writing_artifact(out) as folder:
        model = folder / f"model.{target.suffix or target.format}"
        save_checkpoint(checkpoint.detector, folder / REFERENCE, checkpoint.source)
        make_model(model)
        manifest = Manifest(
            variant=config.variant,
            dcn=target.dcn,
            precision=target.precision,
            format=target.format,
            weights=checkpoint.source,
            model=describe_file(model),
            reference=describe_file(folder / REFERENCE),
            input=_input_tensor(config, target),
            outputs=tuple(
                OutputTensor(name, name, (1, _anchor_count(config, target.size), *rest), target.output_dtype)
                for name, rest in outputs_of(config).items()
            ),
            anchors=AnchorSpec(config.strides, config.min_sizes, config.variances),
            thresholds=Thresholds(),
            runtime=target.runtime,
            parity=None,
        )
        progress("comparing with torch")
        reference = torch_detector(checkpoint, target.size)
        photographs = sample_photographs()
        parity = _worst([measure_parity(reference, detector, photographs) for detector in detectors(Artifact(folder, manifest))])
        require_parity(parity, *target.limits)
        manifest = msgspec.structs.replace(manifest, parity=parity)
        write_manifest(folder, manifest)
        (folder / MODEL_CARD).write_text(model_card(out.name, manifest), encoding="utf-8")
    return parity


def require_multiples(size: tuple[int, int]) -> None:
    """Raise a :class:`UserError` for a side that is no multiple of :data:`STRIDE`."""
    if any(side % STRIDE for side in size):
        nearest = " ".join(str(max(STRIDE, round(side / STRIDE) * STRIDE)) for side in size)
        raise UserError(f"--size {size[0]} {size[1]}: such files are made for multiples of {STRIDE}; try --size {nearest}")


def converter_failed(what: str, log: str) -> UserError:
    """The error of a converter that gave up, with its log in a file that the message names."""
    with tempfile.NamedTemporaryFile("w", prefix="export-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(log)
    return UserError(f"{what}; the converter's log is {file.name}")


def _input_tensor(config: ModelConfig, target: Target) -> InputTensor:
    extents = dict(zip("NCHW", (1, 3, *(target.size or (None, None))), strict=True))
    return InputTensor(
        mean=config.mean,
        colour_order=config.colour_order,
        layout=target.layout,
        dtype=target.dtype,
        shape=tuple(extents[axis] for axis in target.layout),
    )


def _anchor_count(config: ModelConfig, size: tuple[int, int] | None) -> int | None:
    return len(make_anchors(*size, config.strides, config.min_sizes)) if size else None


def _worst(parities: Sequence[Parity]) -> Parity:
    def largest(field: str) -> float:
        return float(np.max([getattr(parity, field) for parity in parities]))  # NaN where one is

    return msgspec.structs.replace(parities[0], **{field: largest(field) for field in ("scores", "boxes_px", "landmarks_px")})

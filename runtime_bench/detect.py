"""A face detector: photograph in, faces out, the same around every runtime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.anchors import make_anchors
from model.artifact import AnchorSpec, Artifact, open_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.errors import UserError
from model.postprocess import Detections, Thresholds, postprocess
from model.preprocess import InputSpec, NetworkInput, prepare
from runtime_bench.latency import require_readable
from runtime_bench.runtimes import Runtime, open_runtime


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one photograph, decoding the file not included."""

    preprocess: float
    """Of the processor, like postprocessing: they may be done while the network runs on other photographs."""
    network: float
    postprocess: float


@dataclass(frozen=True)
class Prepared:
    """A photograph as the network takes it."""

    input: NetworkInput
    ms: float


@dataclass(frozen=True)
class Answered:
    """What the network said to a photograph."""

    photograph: Prepared
    outputs: list[np.ndarray]
    ms: float


@dataclass(frozen=True)
class FaceDetector:
    """Preprocessing, a network in some runtime, postprocessing."""

    runtime: Runtime
    input: InputSpec
    anchors: AnchorSpec
    size: tuple[int, int] | None
    """(height, width) that photographs are letterboxed into, ``None`` for their own size."""

    def detect(self, image: np.ndarray, thresholds: Thresholds) -> tuple[Detections, StageTimes]:
        """Find the faces of ``(H, W, 3)`` uint8 RGB; a :class:`UserError` where the runtime gives something that is no number."""
        return self.finish(self.run(self.prepare(image)), thresholds)

    def prepare(self, image: np.ndarray) -> Prepared:
        """The first part of :meth:`detect`, which needs no network."""
        start = time.thread_time()
        return Prepared(prepare(image, self.input, self.size), 1e3 * (time.thread_time() - start))

    def run(self, photograph: Prepared) -> Answered:
        """The second part, nothing but the network."""
        start = time.perf_counter()
        outputs = self.runtime.run(photograph.input.tensor)
        return Answered(photograph, outputs, 1e3 * (time.perf_counter() - start))

    def finish(self, answered: Answered, thresholds: Thresholds) -> tuple[Detections, StageTimes]:
        """The last part."""
        start = time.thread_time()
        prepared, outputs = answered.photograph.input, answered.outputs
        check_finite(outputs, self.runtime.name)
        anchors = make_anchors(*prepared.tensor.shape[2:], self.anchors.strides, self.anchors.min_sizes)
        rows = len(anchors)
        if [output.shape for output in outputs] not in ([(rows,), (rows, 4), (rows, landmarks)] for landmarks in (10, 0)):
            raise UserError(
                f"{self.runtime.name} gives outputs of {' and '.join(str(output.shape) for output in outputs)} where there are "
                f"{len(anchors)} anchors; the network and its description are not of each other, export it again"
            )
        detections = postprocess(*outputs, anchors, self.anchors.variances, thresholds, (prepared.scale_x, prepared.scale_y))
        return detections, StageTimes(answered.photograph.ms, answered.ms, 1e3 * (time.thread_time() - start))


def check_finite(outputs: Sequence[np.ndarray], runtime: str) -> None:
    """Raise a :class:`UserError` where an output is not a number: thresholds would pass over it in silence."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(f"{runtime} gives values that are no numbers (NaN or infinity); the file is damaged, or its precision too low")


def artifact_detector(artifact: Artifact, threads: int) -> FaceDetector:
    """The detector that an artifact is, at its own input size."""
    return FaceDetector(open_runtime(artifact, threads), artifact.manifest.input, artifact.manifest.anchors, artifact.manifest.input.size)


def torch_detector(checkpoint: Checkpoint, size: tuple[int, int] | None) -> FaceDetector:
    """The FP32 torch model of a checkpoint."""
    from runtime_bench.runtimes.torch import TorchRuntime

    config = checkpoint.detector.config
    return FaceDetector(
        TorchRuntime(checkpoint.detector),
        InputSpec(mean=config.mean, colour_order=config.colour_order),
        AnchorSpec(config.strides, config.min_sizes, config.variances),
        size,
    )


def open_detector(path: Path, threads: int, size: tuple[int, int] | None) -> FaceDetector:
    """An artifact folder, or a checkpoint file run by torch at ``size``."""
    if path.is_dir():
        artifact = open_artifact(path)
        require_readable(artifact)
        return artifact_detector(artifact, threads)
    return torch_detector(load_checkpoint(path), size)

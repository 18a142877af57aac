"""Detectors that somebody might pick instead: public files, each with its own preprocessing and output coding, judged like an artifact.

YuNet as OpenCV's FaceDetectorYN runs it (https://docs.opencv.org/4.x/df/d20/classcv_1_1FaceDetectorYN.html), SCRFD as InsightFace does
(https://github.com/deepinsight/insightface/tree/master/detection/scrfd), and checkpoints in the public RetinaFace layout, by torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.ops import nms

from model.artifact import size_name
from model.checkpoint import load_checkpoint
from model.errors import UserError
from model.files import sha256, size_bytes
from model.postprocess import Detections, Thresholds
from model.preprocess import InputSpec, NetworkInput, prepare
from runtime_bench.detect import Answered, FaceDetector, Prepared, StageTimes, check_finite, torch_detector
from runtime_bench.runtimes.onnxruntime import OnnxFile

STRIDES = (8, 16, 32)
MULTIPLE = 32
"""Both networks need sides that are multiples of it."""

Decoder = Callable[[Sequence[np.ndarray], int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Outputs of the network, and height and width of its input, to ``(N,)`` scores, ``(N, 4)`` boxes and ``(N, 5, 2)`` landmarks in its
pixels. Both networks give landmarks in the order of :data:`model.postprocess.LANDMARK_NAMES`: the person's right eye is the left one in
the image."""


@dataclass(frozen=True)
class Kind:
    """What there is to know of a public detector."""

    name: str
    input: InputSpec
    decode: Decoder


def _yunet(outputs: Sequence[np.ndarray], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``cls``, ``obj``, ``bbox``, ``kps``, each for every stride. Anchor-free: one prediction a place, offsets in strides."""
    found = []
    for level, stride in enumerate(STRIDES):
        classes, objects, boxes, points = (np.asarray(output)[0] for output in outputs[level::3])
        places = _places(height, width, stride)
        centres = places + boxes[:, :2] * stride
        halves = np.exp(boxes[:, 2:]) * stride / 2
        scores = np.sqrt(classes[:, 0].clip(0, 1) * objects[:, 0].clip(0, 1))
        landmarks = places[:, None] + points.reshape(-1, 5, 2) * stride
        found.append((scores, np.concatenate([centres - halves, centres + halves], axis=1), landmarks))
    return tuple(np.concatenate(values).astype(np.float32) for values in zip(*found, strict=True))


def _scrfd(outputs: Sequence[np.ndarray], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, then boxes, then landmarks, each for every stride. Two predictions a place: distances from it, in strides."""
    found = []
    for level, stride in enumerate(STRIDES):
        scores, sides, points = outputs[level::3]
        places = np.repeat(_places(height, width, stride), 2, axis=0)
        boxes = np.concatenate([places - sides[:, :2] * stride, places + sides[:, 2:] * stride], axis=1)
        found.append((scores[:, 0], boxes, places[:, None] + points.reshape(-1, 5, 2) * stride))
    return tuple(np.concatenate(values).astype(np.float32) for values in zip(*found, strict=True))


def _places(height: int, width: int, stride: int) -> np.ndarray:
    """``(places, 2)``: x, y of the upper left corner of each cell, row by row."""
    rows, columns = np.mgrid[: height // stride, : width // stride]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32) * stride


YUNET = Kind("YuNet", InputSpec(mean=(0.0, 0.0, 0.0)), _yunet)
SCRFD = Kind("SCRFD", InputSpec(mean=(127.5, 127.5, 127.5), scale=1 / 128, colour_order="RGB"), _scrfd)


@dataclass(frozen=True)
class PeerDetector:
    """A public detector in ONNX Runtime; used like a :class:`runtime_bench.detect.FaceDetector`."""

    runtime: OnnxFile
    kind: Kind
    size: tuple[int, int] | None
    """(height, width) that photographs are letterboxed into; ``None``: their own size, up to the next multiple of 32."""

    def detect(self, image: np.ndarray, thresholds: Thresholds) -> tuple[Detections, StageTimes]:
        """Find the faces of ``(H, W, 3)`` uint8 RGB; a :class:`UserError` where the file is of another kind."""
        return self.finish(self.run(self.prepare(image)), thresholds)

    def prepare(self, image: np.ndarray) -> Prepared:
        start = time.thread_time()
        padded, scale = letterbox(image, self.size)
        tensor = prepare(padded, self.kind.input).tensor
        return Prepared(NetworkInput(tensor, *scale), 1e3 * (time.thread_time() - start))

    def run(self, photograph: Prepared) -> Answered:
        start = time.perf_counter()
        outputs = self.runtime.run(photograph.input.tensor)
        return Answered(photograph, outputs, 1e3 * (time.perf_counter() - start))

    def finish(self, answered: Answered, thresholds: Thresholds) -> tuple[Detections, StageTimes]:
        start = time.thread_time()
        prepared, outputs = answered.photograph.input, answered.outputs
        tensor, scale = prepared.tensor, (prepared.scale_x, prepared.scale_y)
        check_finite(outputs, self.runtime.name)
        try:
            scores, boxes, landmarks = self.kind.decode(outputs, *tensor.shape[2:])
        except (IndexError, TypeError, ValueError) as error:
            raise UserError(f"the file is no {self.kind.name}: its outputs do not fit a picture of {tensor.shape[2:]} ({error})") from None
        detections = _suppress(scores, boxes / np.float32(scale * 2), landmarks / np.float32(scale), thresholds)
        return detections, StageTimes(answered.photograph.ms, answered.ms, 1e3 * (time.thread_time() - start))


def letterbox(image: np.ndarray, size: tuple[int, int] | None) -> tuple[np.ndarray, tuple[float, float]]:
    """Resize into the upper left corner of a black picture, as both projects do; and (x, y), pixels of it for one of the photograph."""
    height, width = image.shape[:2]
    ratio = 1.0 if size is None else min(size[0] / height, size[1] / width)
    scaled_height, scaled_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    size = size or tuple(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
    if (scaled_height, scaled_width) != (height, width):
        image = np.asarray(Image.fromarray(image).resize((scaled_width, scaled_height), Image.Resampling.BILINEAR))
    padded = np.zeros((*size, 3), np.uint8)
    padded[:scaled_height, :scaled_width] = image
    return padded, (scaled_width / width, scaled_height / height)


def _suppress(scores: np.ndarray, boxes: np.ndarray, landmarks: np.ndarray, thresholds: Thresholds) -> Detections:
    candidates = np.flatnonzero(scores > thresholds.score)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")][: thresholds.top_k]
    scores, boxes, landmarks = scores[candidates], boxes[candidates], landmarks[candidates]
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), thresholds.nms_iou)[: thresholds.keep].numpy()
    return Detections(boxes[kept], scores[kept], landmarks[kept])


@dataclass(frozen=True)
class Peer:
    """A file to compare artifacts with."""

    name: str
    path: Path
    kind: Kind | None
    """``None``: a checkpoint, for torch."""
    digest: str

    @property
    def size_bytes(self) -> int:
        return size_bytes(self.path)

    def detector(self, size: tuple[int, int] | None, threads: int) -> PeerDetector | FaceDetector:
        """At an input size, as artifacts have it."""
        if self.kind is None:
            return torch_detector(load_checkpoint(self.path), size)
        return PeerDetector(OnnxFile(self.path, threads), self.kind, size)

    def title(self, size: tuple[int, int] | None) -> str:
        """What its record is called."""
        return f"{self.name}-{size_name(size)}"


def open_peer(text: str) -> Peer:
    """From ``NAME=FILE``.

    Raises:
        UserError: not of this form, no such file, or a network that nothing is known of.
    """
    name, equals, file = text.partition("=")
    path = Path(file)
    if not (name and equals and file) or "/" in name:
        raise UserError(f"--peer {text}: NAME=FILE is needed")
    if path.is_dir():
        raise UserError(f"--peer {text}: an artifact is compared by naming it beside the others, without --peer")
    if not path.is_file():
        raise UserError(f"--peer {text}: no such file")
    if path.suffix != ".onnx":
        load_checkpoint(path)  # complains now, not after minutes
        return Peer(name, path, None, sha256(path))
    outputs = OnnxFile(path, threads=1).outputs
    channels = [shape[-1] if shape else None for _, shape in outputs]
    kinds = {(1,) * 6 + (4,) * 3 + (10,) * 3: YUNET, (1,) * 3 + (4,) * 3 + (10,) * 3: SCRFD}
    kind = kinds.get(tuple(channels))
    if kind is None:
        raise UserError(f"--peer {text}: neither YuNet nor SCRFD with landmarks, by its outputs ({', '.join(name for name, _ in outputs)})")
    return Peer(name, path, kind, sha256(path))

"""Run a detector over an evaluation set."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from model.errors import UserError
from model.postprocess import Detections
from model.preprocess import load_image
from runtime_bench.detect import FaceDetector
from runtime_bench.record import ImageTimes, SubsetAP
from runtime_bench.widerface import EVALUATION, WiderFace, average_precision


@dataclass(frozen=True)
class Evaluation:
    """What a detector found."""

    detections: dict[str, Detections]
    """By image name; an image that could not be read, or run, is not in it."""
    failed: tuple[str, ...]
    """Names of those."""
    image_ms: ImageTimes
    ap: SubsetAP


def protocol(size: tuple[int, int] | None) -> str:
    """Name of a way to scale photographs; figures of different ways are not comparable."""
    return f"letterbox-{size[0]}x{size[1]}" if size else "original"


def evaluate(detector: FaceDetector, dataset: WiderFace, label: str) -> Evaluation:
    """Detect faces in every image of ``dataset`` and score them. One that fails is reported on stderr and left out.

    Args:
        detector: at its own input size.
        dataset: images with ground truth.
        label: for the progress bar.

    Raises:
        UserError: all have failed.
    """
    detections, times, failed, why = {}, [], [], ""
    for name in tqdm(dataset.faces, desc=label, unit="image", disable=None, leave=False):
        try:
            image = load_image(dataset.images / name)
            detections[name], stage = detector.detect(image, EVALUATION)
            times.append((stage.preprocess, stage.postprocess))
        except UserError as error:
            failed.append(name)
            why = str(error)
            tqdm.write(f"left out: {error}", file=sys.stderr)
    if not detections:
        raise UserError(f"{label}: none of the {len(dataset)} images under {dataset.images} could be evaluated; last: {why}")
    ap = average_precision([dataset.faces[name] for name in detections], list(detections.values()))
    median = ImageTimes(*(float(value) for value in np.median(times, axis=0)))
    return Evaluation(
        detections, tuple(failed), median, SubsetAP(**{subset: None if np.isnan(value) else value for subset, value in ap.items()})
    )

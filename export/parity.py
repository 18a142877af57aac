"""How far an exported model is from the torch model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.anchors import make_anchors
from model.artifact import Parity
from model.errors import UserError
from model.postprocess import decode_boxes, decode_landmarks
from model.preprocess import prepare
from runtime_bench.detect import FaceDetector
from runtime_bench.widerface import EVALUATION


def measure_parity(reference: FaceDetector, candidate: FaceDetector, photographs: Sequence[np.ndarray]) -> Parity:
    """Run both on the same inputs and compare anchor by anchor, before suppression could hide or magnify a difference.

    Args:
        reference, candidate: two detectors of the same network and input size.
        photographs: ``(H, W, 3)`` uint8 RGB each.

    Returns:
        Largest absolute differences. Scores: over all anchors. Boxes and landmarks: in pixels of the network's input, over the anchors
        that either side scores above the evaluation's threshold; the others never become a detection.
    """
    scores = boxes = landmarks = 0.0
    compared = 0
    for photograph in photographs:
        tensor = prepare(photograph, reference.input, reference.size).tensor
        ours, theirs = reference.runtime.run(tensor), candidate.runtime.run(tensor)
        scores = max(scores, _largest(ours.scores, theirs.scores))
        kept = np.flatnonzero(np.maximum(ours.scores, theirs.scores) > EVALUATION.score)
        compared += len(kept)
        # Decoded in double precision: what is compared is the networks, not the rounding of the same decoding.
        anchors = make_anchors(*tensor.shape[2:], reference.anchors.strides, reference.anchors.min_sizes)[kept].astype(np.float64)
        variances = reference.anchors.variances
        boxes = max(boxes, _largest(*(decode_boxes(side.box_deltas[kept], anchors, variances) for side in (ours, theirs))))
        landmarks = max(landmarks, _largest(*(decode_landmarks(side.landmark_deltas[kept], anchors, variances) for side in (ours, theirs))))
    return Parity(scores, boxes, landmarks, compared, len(photographs))


def require_parity(parity: Parity, scores: float, boxes_px: float) -> None:
    """Raise a :class:`UserError` when a difference is not below its limit. Landmarks share the boxes' limit."""
    measured = (
        (parity.scores, scores, "scores"),
        (parity.boxes_px, boxes_px, "boxes (px)"),
        (parity.landmarks_px, boxes_px, "landmarks (px)"),
    )
    for value, limit, name in measured:
        if not value < limit:  # so that NaN fails too
            raise UserError(
                f"the exported model differs from torch by {value:.2e} on {name}, limit {limit:.0e}; nothing was written. "
                "Please report the checkpoint and the command"
            )


def _largest(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).max(initial=0.0))

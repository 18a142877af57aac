"""From the network's outputs to faces, the same way for every runtime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
MIRRORED = (1, 0, 2, 4, 3)
"""Which landmark each of :data:`LANDMARK_NAMES` becomes in a mirror: left is as seen in the image."""


@dataclass(frozen=True)
class Detections:
    """Faces of one photograph, best first, in pixels of the original photograph. Boxes may reach beyond its border."""

    boxes: np.ndarray
    """``(F, 4)`` float32: left, top, right, bottom."""
    scores: np.ndarray
    """``(F,)`` float32 in 0 to 1."""
    landmarks: np.ndarray
    """``(F, 5, 2)`` float32: x, y of :data:`LANDMARK_NAMES`; ``(F, 0, 2)`` where the network gives none."""

    def __len__(self) -> int:
        return len(self.scores)


class Thresholds(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept. The defaults are for people to look at; the published evaluation has ``score=0.02``."""

    score: float = 0.5
    nms_iou: float = 0.4
    top_k: int = 5000
    """Candidates that enter non-maximum suppression."""
    keep: int = 750
    """Faces that leave it."""


def decode_boxes(deltas: np.ndarray, anchors: np.ndarray, variances: tuple[float, float]) -> np.ndarray:
    """SSD box coding (Liu et al. 2016, section 2.2), inverted.

    Args:
        deltas: ``(A, 4)`` float32.
        anchors: ``(A, 4)`` float32, see :func:`model.anchors.make_anchors`.
        variances: for centres and for log sizes.

    Returns:
        ``(A, 4)`` float32: left, top, right, bottom in the anchors' pixels.
    """
    centres = anchors[:, :2] + deltas[:, :2] * variances[0] * anchors[:, 2:]
    # A wild network may ask for e^1000; a box of e^10 anchor sides is already off every photograph.
    halves = anchors[:, 2:] * np.exp(np.minimum(deltas[:, 2:] * variances[1], 10.0)) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def decode_landmarks(deltas: np.ndarray, anchors: np.ndarray, variances: tuple[float, float]) -> np.ndarray:
    """``(A, 10)`` deltas to ``(A, 5, 2)`` points in the anchors' pixels, or none to none: each coded like a box's centre."""
    return anchors[:, None, :2] + deltas.reshape(len(deltas), deltas.shape[1] // 2, 2) * variances[0] * anchors[:, None, 2:]


def postprocess(
    scores: np.ndarray,
    box_deltas: np.ndarray,
    landmark_deltas: np.ndarray,
    anchors: np.ndarray,
    variances: tuple[float, float],
    thresholds: Thresholds,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Detections:
    """Threshold, decode, suppress.

    Args:
        scores: ``(A,)`` face probabilities.
        box_deltas, landmark_deltas: ``(A, 4)`` and ``(A, 10)`` or ``(A, 0)``.
        anchors: ``(A, 4)``.
        variances: of the box coding.
        thresholds: what to keep.
        scale: (x, y), network pixels for a pixel of the photograph; the result is divided by it.
    """
    import torch  # here, so that a device that only runs networks need not have it
    from torchvision.ops import nms

    candidates = np.flatnonzero(scores > thresholds.score)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")][: thresholds.top_k]
    anchors, scores = anchors[candidates], scores[candidates]
    boxes = decode_boxes(box_deltas[candidates], anchors, variances) / np.asarray(scale * 2, np.float32)
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), thresholds.nms_iou)[: thresholds.keep].numpy()
    landmarks = decode_landmarks(landmark_deltas[candidates[kept]], anchors[kept], variances) / np.asarray(scale, np.float32)
    return Detections(boxes[kept], scores[kept], landmarks)

"""Several looks at one photograph, at other scales and in the mirror, and the protocols of evaluation that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou, nms

from model.postprocess import MIRRORED, Detections, Thresholds
from runtime_bench.detect import FaceDetector, StageTimes

SHORT_SIDES = (500, 800, 1100, 1400, 1700)
"""Pixels, as RetinaFace was published with (Deng et al. 2020, section 4.3)."""
LONGEST_SIDE = 1.5
"""Over the short side. Photographs that are longer are scaled by their long side instead, as the public evaluation code does."""
ENLARGED = (1600, 2150)
"""Pixels that the short side gets, and that the long side may have, where the public PyTorch RetinaFace looks once, "with the parameters of
MXNet"."""


class View(NamedTuple):
    """A way to look at a photograph."""

    scale: float
    mirrored: bool = False


def original(height: int, width: int) -> list[View]:
    return [View(1)]


def multi_scale(height: int, width: int) -> list[View]:
    """A photograph of these sides, pixels, with each of :data:`SHORT_SIDES`."""
    reach = max(min(height, width), max(height, width) / LONGEST_SIDE)
    return [View(side / reach) for side in SHORT_SIDES]


def enlarged(height: int, width: int) -> list[View]:
    """As large as :data:`ENLARGED` lets it be."""
    return [View(min(ENLARGED[0] / min(height, width), ENLARGED[1] / max(height, width)))]


def with_mirror(views: Callable[[int, int], list[View]]) -> Callable[[int, int], list[View]]:
    return lambda height, width: [View(view.scale, mirrored) for view in views(height, width) for mirrored in (False, True)]


PROTOCOLS = {
    "original": original,
    "short-side-1600": enlarged,
    "original-flip": with_mirror(original),
    "multi-scale": multi_scale,
    "multi-scale-flip": with_mirror(multi_scale),
}
"""By name: ways to look, beside letterboxes, whose names :func:`runtime_bench.evaluate.protocol` gives. What several looks find is
merged by :func:`vote`. The last is that of the paper's tables; the public PyTorch RetinaFace was published by the first two."""


def look(detector: FaceDetector, image: np.ndarray, views: Iterable[View], thresholds: Thresholds) -> Iterator[tuple[View, Detections]]:
    """What each view of ``(H, W, 3)`` uint8 RGB shows, in pixels of the photograph as it is."""
    height, width = image.shape[:2]
    for view in views:
        size = (max(1, round(height * view.scale)), max(1, round(width * view.scale)))
        seer = FaceDetector(detector.runtime, detector.input, detector.anchors, size)
        found, _ = seer.detect(np.ascontiguousarray(image[:, ::-1]) if view.mirrored else image, thresholds)
        yield view, unmirror(found, width) if view.mirrored else found


def unmirror(found: Detections, width: int) -> Detections:
    """Detections in a mirrored photograph of this width, put back."""
    boxes = found.boxes[:, [2, 1, 0, 3]] * np.float32([-1, 1, -1, 1]) + np.float32([width, 0, width, 0])
    order = MIRRORED[: found.landmarks.shape[1]]  # none of none
    landmarks = found.landmarks[:, order] * np.float32([-1, 1]) + np.float32([width, 0])
    return Detections(boxes, found.scores, landmarks)


_ROWS = 4096
"""Boxes whose overlaps are computed at once."""


def vote(candidates: Detections, iou: float, keep: int) -> Detections:
    """Box voting (Gidaris and Komodakis 2015, section 4): the best box and all that overlap it by ``iou`` become one, and so on with those
    that are left.

    Boxes and landmarks are means by score, the score is the best one. A box that nobody else votes for is dropped, as the public evaluation
    code of RetinaFace does; boxes should come before suppression, so that neighbouring anchors vote as well as views.

    Args:
        candidates: in any order.
        iou: from which boxes are of one face.
        keep: how many to return at most, the best ones.
    """
    if not len(candidates):
        return candidates
    order = np.argsort(-candidates.scores, kind="stable")
    boxes, scores, landmarks = (values[order] for values in (candidates.boxes, candidates.scores, candidates.landmarks))
    leaders = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    # Each belongs to the first leader that it overlaps; the leaders are the best of those that are left, one after the other.
    leading = torch.from_numpy(boxes)[leaders]
    pieces = torch.from_numpy(boxes).split(_ROWS)
    owner = torch.cat([(box_iou(piece, leading) > iou).int().argmax(dim=1) for piece in pieces]).numpy()
    voters = np.bincount(owner, minlength=len(leaders))
    weight = np.bincount(owner, scores, len(leaders))

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(leaders), *values.shape[1:]))
        np.add.at(total, owner, values * scores.reshape(-1, *[1] * (values.ndim - 1)))
        return (total / weight.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32)

    seconded = np.flatnonzero(voters > 1)[:keep]
    return Detections(mean(boxes)[seconded], scores[leaders.numpy()][seconded], mean(landmarks)[seconded])


class Waiting(NamedTuple):
    """A photograph whose views are made when they are looked at: all of them at once would take gigabytes."""

    image: np.ndarray


@dataclass(frozen=True)
class ViewDetector:
    """A detector that looks at every photograph in several ways and merges what it finds; to be evaluated, not to be timed."""

    detector: FaceDetector
    """Its own size is not used; the runtime takes any."""
    views: Callable[[int, int], list[View]]
    """One of :data:`PROTOCOLS`."""

    def prepare(self, image: np.ndarray) -> Waiting:
        return Waiting(image)

    def run(self, photograph: Waiting) -> Waiting:
        """Nothing: every view is looked at, and let go, by :meth:`finish`."""
        return photograph

    def finish(self, photograph: Waiting, thresholds: Thresholds) -> tuple[Detections, StageTimes]:
        """As :meth:`runtime_bench.detect.FaceDetector.finish`, the network included; times are not measured."""
        views = self.views(*photograph.image.shape[:2])
        alone = len(views) == 1  # nobody to vote with: suppression, as ever
        raw = thresholds if alone else Thresholds(thresholds.score, nms_iou=1.0, top_k=thresholds.top_k, keep=thresholds.top_k)
        seen = [found for _, found in look(self.detector, photograph.image, views, raw)]
        every = Detections(*(np.concatenate([getattr(found, field) for found in seen]) for field in ("boxes", "scores", "landmarks")))
        return every if alone else vote(every, thresholds.nms_iou, thresholds.keep), StageTimes(0.0, 0.0, 0.0)

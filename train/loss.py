"""Losses: RetinaFace's multi-task loss on labelled faces, and distillation from another network on any photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, smooth_l1_loss
from torchvision.ops import box_iou, distance_box_iou_loss

from model.detector import RawOutputs
from model.postprocess import MIRRORED

MATCH_IOU = 0.35
"""An anchor that overlaps a face by so much is to find it."""
BEST_IOU = 0.2
"""Each face's best anchor is to find it too, from this overlap on."""
NEGATIVES = 7
"""Background anchors for each positive one, the hardest first."""
GOOD_BOX = (0.35, 0.65)
"""IoU up to which a box is worthless and from which it is good, around the 0.5 that evaluation asks for."""
CANDIDATES = 9
"""Cells of each level, the nearest to a face's centre, among whose anchors ATSS chooses."""


@dataclass(frozen=True)
class Targets:
    """What the anchors of one image should answer."""

    labels: Tensor
    """``(A,)`` int64: 1 face, 0 background, -1 not to be taught."""
    boxes: Tensor
    """``(A, 4)`` coded; meaningful where the label is 1."""
    landmarks: Tensor
    """``(A, 10)`` coded; NaN where unknown."""

    def to(self, device: torch.device) -> Targets:
        return Targets(self.labels.to(device), self.boxes.to(device), self.landmarks.to(device))


def match(
    boxes: Tensor,
    landmarks: Tensor,
    anchors: Tensor,
    variances: tuple[float, float],
    ignored: Tensor,
    levels: Sequence[int] | None = None,
) -> Targets:
    """Assign faces to anchors.

    An anchor that overlaps a face by :data:`MATCH_IOU` is to find it, and so is the best anchor of each face (SSD, Liu et al. 2016, section
    2.2, with RetinaFace's thresholds). With ``levels`` each face chooses its anchors itself instead (:func:`choose_adaptively`), so that a
    face of 10 pixels has about as many as one of 300; the others of that overlap are not taught.

    Args:
        boxes, landmarks: ``(F, 4)`` xyxy and ``(F, 5, 2)`` in the input's pixels.
        anchors: ``(A, 4)``, see :func:`model.anchors.make_anchors`.
        variances: of the box coding.
        ignored: ``(F,)`` bool: faces that are neither to be found nor taught as background.
        levels: number of cells of each level, for the adaptive choice.
    """
    count = len(anchors)
    labels = torch.zeros(count, dtype=torch.int64)
    if not len(boxes):
        return Targets(labels, torch.zeros(count, 4), torch.full((count, 10), float("nan")))
    overlaps = box_iou(boxes, corners(anchors))
    best_overlap, face = overlaps.max(dim=0)
    if levels is not None:
        labels[best_overlap >= MATCH_IOU] = -1
        chosen = overlaps.masked_fill(~choose_adaptively(boxes, anchors, overlaps, levels), -1.0)
        # One that several chose is of the face that it overlaps most.
        chosen_overlap, choice = chosen.max(dim=0)
        labels[chosen_overlap >= 0] = 1
        face = torch.where(chosen_overlap >= 0, choice, face)
    else:
        labels[best_overlap >= MATCH_IOU] = 1
    # A face's best anchor is its own, whatever other face overlaps it more.
    own_overlap, own_anchor = overlaps.max(dim=1)
    for index in range(len(boxes)):
        if own_overlap[index] >= BEST_IOU:
            labels[own_anchor[index]] = 1
            face[own_anchor[index]] = index
    labels[(labels == 1) & ignored[face]] = -1
    if ignored.any():  # and anchors that look mostly at such a face
        labels[(labels == 0) & (overlaps[ignored].amax(dim=0) >= BEST_IOU)] = -1

    matched = boxes[face]
    centres = ((matched[:, :2] + matched[:, 2:]) / 2 - anchors[:, :2]) / (variances[0] * anchors[:, 2:])
    sizes = ((matched[:, 2:] - matched[:, :2]) / anchors[:, 2:]).clamp(min=1e-6).log() / variances[1]
    points = (landmarks[face] - anchors[:, None, :2]) / (variances[0] * anchors[:, None, 2:])
    return Targets(labels, torch.cat([centres, sizes], dim=1), points.flatten(1))


def corners(anchors: Tensor) -> Tensor:
    """``(A, 4)`` centre and size to xyxy."""
    return torch.cat([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], dim=1)


def choose_adaptively(boxes: Tensor, anchors: Tensor, overlaps: Tensor, levels: Sequence[int]) -> Tensor:
    """ATSS (Zhang et al. 2020, algorithm 1): candidates are the anchors of the :data:`CANDIDATES` cells of each level that are nearest to a
    face's centre; chosen are those with their centre inside the face that overlap it by at least the mean plus the standard deviation of
    all candidates' overlaps.

    Args:
        overlaps: ``(F, A)`` of faces and anchors.
        levels: number of cells of each level.

    Returns:
        ``(F, A)`` bool.
    """
    distances = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, :2])
    per_cell = len(anchors) // sum(levels)
    first = 0
    candidates = []
    for cells in levels:
        count = cells * per_cell
        nearest = distances[:, first : first + count].topk(min(CANDIDATES, cells) * per_cell, dim=1, largest=False).indices
        candidates.append(nearest + first)
        first += count
    candidates = torch.cat(candidates, dim=1)
    overlap = overlaps.gather(1, candidates)
    threshold = overlap.mean(dim=1, keepdim=True) + overlap.std(dim=1, keepdim=True)
    x, y = anchors[candidates][..., 0], anchors[candidates][..., 1]
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    good = (overlap >= threshold) & (x > left) & (x < right) & (y > top) & (y < bottom)
    return torch.zeros_like(overlaps, dtype=torch.bool).scatter(1, candidates, good)


def detection_loss(
    outputs: RawOutputs, targets: Sequence[Targets], anchors: Tensor | None = None, variances: tuple[float, float] = (0.1, 0.2)
) -> dict[str, Tensor]:
    """RetinaFace's loss (Deng et al. 2020, section 3.1) before its weights: ``class``, ``box`` and, of networks that have them,
    ``landmark``, for each positive anchor.

    Args:
        outputs: of the ``N`` images of ``targets``.
        anchors: ``(A, 4)`` to judge boxes by how they overlap faces, see :func:`overlap_loss`; ``None`` for the published loss, smooth L1
            of codes and a score of 1 for every positive anchor.
        variances: of the box coding.
    """
    labels, boxes, landmarks = (torch.stack([getattr(target, field) for target in targets]) for field in ("labels", "boxes", "landmarks"))
    positive = labels == 1
    total = positive.sum().clamp(min=1)
    score = positive.float()
    if anchors is None:
        box = smooth_l1_loss(outputs.box_deltas[positive], boxes[positive], reduction="sum")
    else:
        places = anchors.expand(len(labels), -1, -1)[positive]
        box, score[positive] = overlap_loss(*(decode(codes[positive], places, variances) for codes in (outputs.box_deltas, boxes)))

    logs = log_softmax(outputs.class_logits, dim=-1)
    entropy = -(score * logs[..., 1] + (1 - score) * logs[..., 0])
    hardness = entropy.detach().masked_fill(labels != 0, -1.0)
    # Rank of each background anchor of an image, the hardest first.
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    negative = (labels == 0) & (rank < NEGATIVES * positive.sum(dim=1, keepdim=True).clamp(min=1))
    known = positive & landmarks.isfinite().all(dim=2)
    terms = {"class": (entropy * (positive | negative)).sum() / total, "box": box / total}
    if outputs.landmark_deltas.shape[2]:
        terms["landmark"] = smooth_l1_loss(outputs.landmark_deltas[known], landmarks[known], reduction="sum") / known.sum().clamp(min=1)
    return terms


def overlap_loss(boxes: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Judge boxes by their overlap with the faces that they are to find, ``(P, 4)`` xyxy each.

    Returns:
        The sum of DIoU losses (Zheng et al. 2020), which weigh an error by the size of the face; and ``(P,)`` what each score should be: 1
        for a box that is good, 0 for one that will be counted as false, however much of a face there is, and a ramp between. So
        scores rank boxes by how likely they are right (as in Generalized Focal Loss, Li et al. 2020, section 3), yet a face well found
        scores 1.
    """
    low, high = GOOD_BOX
    score = (_overlaps(boxes.detach(), faces) - low) / (high - low)
    return distance_box_iou_loss(boxes, faces, reduction="sum"), score.clamp(0, 1)


def _overlaps(boxes: Tensor, faces: Tensor) -> Tensor:
    """``(P,)`` IoU of pairs."""
    common = (torch.minimum(boxes[:, 2:], faces[:, 2:]) - torch.maximum(boxes[:, :2], faces[:, :2])).clamp(min=0).prod(dim=1)
    areas = [(corner[:, 2:] - corner[:, :2]).prod(dim=1) for corner in (boxes, faces)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-7)


def decode(codes: Tensor, anchors: Tensor, variances: tuple[float, float]) -> Tensor:
    """:func:`model.postprocess.decode_boxes`, differentiable."""
    centres = anchors[:, :2] + codes[:, :2] * variances[0] * anchors[:, 2:]
    return corners(torch.cat([centres, anchors[:, 2:] * (codes[:, 2:] * variances[1]).clamp(max=10.0).exp()], dim=1))


def mirror_answers(answers: RawOutputs, height: int, width: int, strides: Sequence[int]) -> RawOutputs:
    """Answers to a mirrored image, put back: what the network would say of the image itself if it were indifferent to mirrors.

    Args:
        answers: for ``N`` images.
        height, width: of the images; width a multiple of every stride, so that cells fall on cells.
        strides: of the levels.
    """
    anchors = answers.class_logits.shape[1]
    cells = [(-(-height // stride), -(-width // stride)) for stride in strides]
    per_cell = anchors // sum(rows * columns for rows, columns in cells)
    order, start = [], 0
    for rows, columns in cells:
        count = rows * columns * per_cell
        order.append(torch.arange(start, start + count).view(rows, columns, per_cell).flip(1).flatten())
        start += count
    logits, boxes, landmarks = (value[:, torch.cat(order).to(value.device)] for value in answers)
    boxes = boxes * boxes.new_tensor([-1, 1, 1, 1])
    if landmarks.shape[2]:
        landmarks = (landmarks.unflatten(2, (5, 2))[:, :, MIRRORED] * landmarks.new_tensor([-1, 1])).flatten(2)
    return RawOutputs(logits, boxes, landmarks)


def mean_answers(first: RawOutputs, second: RawOutputs) -> RawOutputs:
    """Of two views of the same images: mean probabilities (as logits) and mean codes."""
    probability = (first.class_logits.softmax(-1) + second.class_logits.softmax(-1)) / 2
    return RawOutputs(
        probability.clamp(min=1e-9).log(), (first.box_deltas + second.box_deltas) / 2, (first.landmark_deltas + second.landmark_deltas) / 2
    )


def distillation_loss(student: RawOutputs, teacher: RawOutputs, trust: Tensor) -> dict[str, Tensor]:
    """How far the student's answers are from the teacher's at every anchor, for each face anchor that the teacher sees.

    ``class`` is the divergence of the two distributions; boxes and landmarks count as much as the teacher believes in the face, so no
    threshold is needed. Both networks have the same anchors.

    Args:
        student, teacher: answers to the same ``N`` images.
        trust: ``(N, A)`` weight of each anchor in ``class`` and ``box``: labels know better than a teacher.
    """
    target = log_softmax(teacher.class_logits, dim=-1)
    belief = target[..., 1].exp()
    total = belief.sum().clamp(min=1)

    def coded(mine: Tensor, theirs: Tensor) -> Tensor:
        return smooth_l1_loss(mine, theirs, reduction="none").sum(-1) * belief

    divergence = kl_div(log_softmax(student.class_logits, dim=-1), target, reduction="none", log_target=True).sum(2)
    terms = {
        "class": (divergence * trust).sum() / total,
        "box": (coded(student.box_deltas, teacher.box_deltas) * trust).sum() / total,
    }
    if student.landmark_deltas.shape[2] and teacher.landmark_deltas.shape[2]:
        terms["landmark"] = coded(student.landmark_deltas, teacher.landmark_deltas).sum() / total
    return terms

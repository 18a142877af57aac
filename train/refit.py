"""Scores that rank: the class heads of a trained network, fitted once more so that a box that would count as false scores below one that
finds its face.

Training teaches every anchor whether a face is there; average precision asks whether the box that comes out overlaps one by half. The two
differ most for small faces, which are found and badly placed, and one such box above a large face's costs more than anything else. What the
heads read says how well a box is placed, so they can tell: logistic regression on fixed features, in the units of the evaluation (as the
classifiers trained anew behind a frozen network of Kang et al. 2020, section 4). Boxes, landmarks and the network's shape stay as they are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import box_iou, nms
from tqdm import tqdm

from model.anchors import make_anchors
from model.detector import Detector, RawOutputs
from model.errors import UserError
from model.postprocess import Detections, Thresholds, decode_boxes
from model.preprocess import InputSpec, load_image, prepare
from runtime_bench.widerface import EVALUATION, SUBSETS, GroundTruth, WiderFace, average_precision, claim_faces

SHOWN = EVALUATION.score / 2
"""Score from which a box is looked at; one that the evaluation does not see may be seen by other weights."""
STIFFNESS = 1.0
"""Weight of the penalty on how far weights move, in standard deviations of what they multiply, squared. On held-out photographs a part of
the way to loosely fitted weights was better than all of the way to stiffer ones (3, 10, 30)."""
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Of the way from the old weights to the fitted ones, to choose from."""
MAY_LOSE = 0.5
"""Points of average precision that a subset may lose for what the others gain: what a few hundred photographs cannot tell."""
_STEPS = 150


@dataclass(frozen=True)
class Candidates:
    """What a network shows on one photograph before suppression: ``D`` boxes, best first."""

    truth: GroundTruth
    boxes: Tensor
    """``(D, 4)`` xyxy, pixels of the photograph."""
    features: Tensor
    """``(D, channels + 1)``: what the class head reads there, and 1."""
    kind: Tensor
    """``(D,)`` int64: level times anchors a cell, plus the anchor within its cell; each kind has weights of its own."""
    hit: Tensor
    """``(D,)`` bool: whether it overlaps a face by enough."""
    counts: Tensor
    """``(D, subsets)`` bool: whether a subset counts it at all; one on a face outside the subset is neither right nor wrong."""
    weight: Tensor
    """``(D,)``: one over the number of boxes that suppression makes one of."""

    def logits(self, weights: Tensor) -> Tensor:
        """``(D,)`` of the face less the background, if the class heads had these weights."""
        return (self.features * weights[self.kind]).sum(dim=1)


def look(detector: Detector, photographs: WiderFace) -> list[Candidates]:
    """Run the network on every photograph at its own scale. Those without faces, in which nothing is counted, are passed over, and so, with
    a warning, are those that cannot be read.

    Raises:
        UserError: no box is shown on any.
    """
    config = detector.config
    spec = InputSpec(mean=config.mean, colour_order=config.colour_order)
    seen: list[Candidates] = []
    with _head_inputs(detector) as features, torch.inference_mode():
        for name, faces in tqdm(photographs.faces.items(), desc="looking", unit="image", disable=None, leave=False):
            if not len(faces.boxes):
                continue
            try:
                image = torch.from_numpy(prepare(load_image(photographs.images / name), spec).tensor)
            except UserError as error:
                tqdm.write(f"left out: {error}", file=sys.stderr)
                continue
            features.clear()
            answers = detector(image)
            anchors = make_anchors(*image.shape[2:], config.strides, config.min_sizes)
            seen.append(_candidates(detector, features, answers, anchors, faces))
    if not sum(len(photograph.boxes) for photograph in seen):
        raise UserError(f"the network shows no face on the photographs of {photographs.title}; train it first")
    return seen


def _candidates(detector: Detector, features: Sequence[Tensor], answers: RawOutputs, anchors: np.ndarray, faces: GroundTruth) -> Candidates:
    scores = answers.class_logits[0].softmax(-1)[:, 1].numpy()
    shown = np.flatnonzero(scores > SHOWN)
    shown = shown[np.argsort(-scores[shown], kind="stable")][: EVALUATION.top_k]
    per_cell = detector.config.anchors_per_cell
    cells = shown // per_cell
    level = np.repeat(np.arange(len(features)), [feature[0, 0].numel() for feature in features])[cells]
    boxes = decode_boxes(answers.box_deltas[0].numpy()[shown], anchors[shown], detector.config.variances)
    claimed, hit = claim_faces(faces.boxes, boxes)
    places = torch.from_numpy(boxes)
    weight = torch.zeros(0)
    if len(boxes):
        owner = box_iou(places, places[nms(places, torch.from_numpy(scores[shown]), EVALUATION.nms_iou)]).argmax(dim=1)
        weight = 1 / owner.bincount()[owner]
    return Candidates(
        faces,
        places,
        torch.cat([torch.cat([feature[0].flatten(1).T for feature in features])[cells], torch.ones(len(cells), 1)], dim=1),
        torch.from_numpy(level * per_cell + shown % per_cell),
        torch.from_numpy(hit),
        torch.from_numpy(np.stack([~hit | faces.subsets[subset][claimed] for subset in SUBSETS], axis=1)),
        weight,
    )


@contextmanager
def _head_inputs(detector: Detector) -> Iterator[list[Tensor]]:
    """A list that every run of the network adds to what its class heads read, level by level."""
    seen: list[Tensor] = []
    hooks = [head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for head in detector.class_heads]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def fit(seen: Sequence[Candidates], weights: Tensor, stiffness: float = STIFFNESS) -> Tensor:
    """Weights that rank candidates better: logistic regression of hit on features, for each kind.

    The loss is the cross entropy for each face, in the mean over subsets; each counts its own candidates and has an offset of its own,
    since their order is all that matters to average precision. So a false box is as dear as there: most where faces are few.

    Args:
        seen: by the network whose weights these are.
        weights: ``(kinds, channels + 1)`` of :func:`read_heads`, to start from and stay near.
        stiffness: see :data:`STIFFNESS`.

    Returns:
        The same shape. How high scores are is left to :func:`keep_level`.
    """
    features, kind, hit, counts, weight = (
        torch.cat([getattr(photograph, field) for photograph in seen]) for field in ("features", "kind", "hit", "counts", "weight")
    )
    order = kind.argsort(stable=True)
    sizes = kind.bincount(minlength=len(weights)).tolist()
    features = features[order].split(sizes)
    hit, weight = hit[order].float(), weight[order]
    faces = [max(1, sum(int(photograph.truth.subsets[subset].sum()) for photograph in seen)) for subset in SUBSETS]
    terms = [column * weight / (count * len(SUBSETS)) for column, count in zip(counts[order].T, faces, strict=True)]
    spread = torch.stack([rows.std(dim=0) if len(rows) > 1 else torch.zeros(weights.shape[1]) for rows in features])
    spread[spread == 0] = spread.max().clamp(min=1)  # a channel that is silent here may speak elsewhere; the bias is as stiff
    moved, offsets = weights.clone().requires_grad_(), torch.zeros(len(SUBSETS), requires_grad=True)
    optimizer = torch.optim.LBFGS([moved, offsets], max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = torch.cat([rows @ row for rows, row in zip(features, moved, strict=True)])
        total = stiffness * ((moved - weights) * spread).square().sum()
        for offset, term in zip(offsets, terms, strict=True):
            total = total + binary_cross_entropy_with_logits(logits + offset, hit, term, reduction="sum")
        total.backward()
        return total

    optimizer.step(loss)
    return moved.detach()


def keep_level(seen: Sequence[Candidates], old: Tensor, new: Tensor) -> Tensor:
    """``new`` weights with all biases moved alike, so that as many boxes as with the ``old`` ones reach the default threshold: whoever
    shows faces from 0.5 on should not have to find another."""
    before, after = (torch.cat([photograph.logits(weights) for photograph in seen]) for weights in (old, new))
    weight = torch.cat([photograph.weight for photograph in seen])
    least = math.log(Thresholds().score / (1 - Thresholds().score))
    order = after.argsort(descending=True, stable=True)
    as_many = int(torch.searchsorted(weight[order].cumsum(dim=0), weight[before > least].sum(), right=True))
    levelled = new.clone()
    levelled[:, -1] += least - after[order[min(as_many, len(order) - 1)]]
    return levelled


def judge(seen: Sequence[Candidates], weights: Tensor) -> dict[str, float]:
    """Average precision of what was seen, by subset, if the class heads had these weights."""
    found = []
    for photograph in seen:
        scores = photograph.logits(weights).sigmoid()
        order = scores.argsort(descending=True, stable=True)
        order = order[scores[order] > EVALUATION.score]
        kept = order[nms(photograph.boxes[order], scores[order], EVALUATION.nms_iou)[: EVALUATION.keep]]
        found.append(Detections(photograph.boxes[kept].numpy(), scores[kept].numpy(), np.zeros((len(kept), 0, 2), np.float32)))
    return average_precision([photograph.truth for photograph in seen], found)


def choose(precisions: Sequence[dict[str, float]], may_lose: float = MAY_LOSE) -> int:
    """Number of the best of several average precisions: of those that lose at most so much against the first, in any subset, the one that
    is best in the mean. Subsets without a face, whose precision is NaN, have no say."""
    first = {subset: value for subset, value in precisions[0].items() if not math.isnan(value)}
    fair = [all(precision[subset] >= first[subset] - may_lose for subset in first) for precision in precisions]
    return max(
        (number for number in range(len(precisions)) if fair[number]),
        key=lambda number: sum(precisions[number][subset] for subset in first),
    )


def read_heads(detector: Detector) -> Tensor:
    """``(kinds, channels + 1)``: weights and bias of the face's logit less the background's, for each level and anchor of a cell."""
    both = torch.cat([torch.cat([head.weight.flatten(1), head.bias[:, None]], dim=1) for head in detector.class_heads]).detach()
    return both[1::2] - both[0::2]


def write_heads(detector: Detector, weights: Tensor) -> None:
    """Inverse of :func:`read_heads`; either logit takes half of the change."""
    half = (weights - read_heads(detector)) / 2
    changes = torch.stack([-half, half], dim=1).flatten(0, 1).split([head.out_channels for head in detector.class_heads])
    with torch.no_grad():
        for head, change in zip(detector.class_heads, changes, strict=True):
            head.weight += change[:, :-1].view_as(head.weight)
            head.bias += change[:, -1]

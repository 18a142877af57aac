"""What an artifact lost against the FP32 torch model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
import torch
from torchvision.ops import box_iou

from model.artifact import Artifact
from model.checkpoint import load_checkpoint
from model.cost import measure_cost
from model.postprocess import Detections
from runtime_bench.detect import torch_detector
from runtime_bench.evaluate import Evaluation, evaluate
from runtime_bench.record import Drift, Example, Faces, ImageDrift, SizeDrift, Spread, SubsetAP, SubsetInterval
from runtime_bench.widerface import IOU, SUBSETS, GroundTruth, WiderFace, claim_faces, drop_intervals

HEIGHTS = (0, 16, 32, 64, 128, 256)
"""Lower limits of the sizes that lost and gained faces are counted by, pixels of the photograph."""
_LISTED = 20
"""Photographs named in the record."""
_EXAMPLES = 3
"""Those whose detections are in it."""


class References:
    """Evaluations of FP32 torch models on one dataset, each made once: artifacts of one checkpoint and one input size share it."""

    def __init__(self, dataset: WiderFace) -> None:
        self.dataset = dataset
        self._evaluations: dict[tuple[str, tuple[int, int] | None], Evaluation] = {}
        self._macs: dict[tuple[str, int, int], int] = {}

    @cached_property
    def digest(self) -> str:
        """Of the dataset."""
        return self.dataset.digest()

    def of(self, artifact: Artifact) -> Evaluation:
        key = (artifact.manifest.reference.sha256, artifact.manifest.input.size)
        if key not in self._evaluations:
            checkpoint = load_checkpoint(artifact.reference_path)
            # The same function, several times faster; export has compared the artifact with the ordinary forms.
            checkpoint.detector.use_training_forms()
            self._evaluations[key] = evaluate(torch_detector(checkpoint, artifact.manifest.input.size), self.dataset, "FP32 torch")
        return self._evaluations[key]

    def macs(self, artifact: Artifact, height: int, width: int) -> int:
        """Multiply-accumulates of the torch model."""
        key = (artifact.manifest.reference.sha256, height, width)
        if key not in self._macs:
            self._macs[key] = measure_cost(load_checkpoint(artifact.reference_path).detector, height, width).macs
        return self._macs[key]


def ap_drop(reference: SubsetAP, ap: SubsetAP) -> SubsetAP:
    """Percentage points lost on each subset, ``None`` where there is nothing to compare."""
    pairs = {subset: (getattr(reference, subset), getattr(ap, subset)) for subset in SUBSETS}
    return SubsetAP(**{subset: None if None in pair else pair[0] - pair[1] for subset, pair in pairs.items()})


def drop_interval(dataset: WiderFace, reference: Evaluation, found: Evaluation) -> SubsetInterval:
    """How far :func:`ap_drop` may be due to the choice of images, of those that both have seen."""
    names = _shared(reference, found)
    before, after = ([evaluation.detections[name] for name in names] for evaluation in (reference, found))
    # Counts of other images do not serve: scores are stretched over all of them.
    counts = tuple(evaluation.counts if len(evaluation.detections) == len(names) else None for evaluation in (reference, found))
    return SubsetInterval(**drop_intervals([dataset.faces[name] for name in names], before, after, counts))


def ap_gain(dataset: WiderFace, before: Evaluation, after: Evaluation) -> dict[str, tuple[float | None, tuple[float, float] | None]]:
    """Percentage points gained on each subset, and their bootstrapped 95 % interval; ``None`` where there is nothing, or too little, to
    compare."""
    gain = msgspec.structs.asdict(ap_drop(after.ap, before.ap))
    drops = msgspec.structs.asdict(drop_interval(dataset, before, after))
    return {subset: (gain[subset], drop and (-drop[1], -drop[0])) for subset, drop in drops.items()}


def measure_drift(dataset: WiderFace, reference: Evaluation, found: Evaluation, score_threshold: float) -> Drift:
    """Compare detections photograph by photograph.

    Args:
        dataset: what both were evaluated on.
        reference: before.
        found: after.
        score_threshold: of the product; see :class:`runtime_bench.record.Drift`.
    """
    pairs, sizes, images, unpaired = [], [], [], 0
    for name in _shared(reference, found):
        before, after = reference.detections[name], found.detections[name]
        figures, alone = _compare(before, after, score_threshold)
        pairs.append(figures)
        unpaired += alone
        faces = dataset.faces[name]
        counted = np.any([faces.subsets[subset] for subset in SUBSETS], axis=0)
        seen = [_found(faces, detections, score_threshold)[counted] for detections in (before, after)]
        lost, gained = seen[0] & ~seen[1], seen[1] & ~seen[0]
        sizes.append(np.column_stack([(faces.boxes[:, 3] - faces.boxes[:, 1])[counted], seen[0], lost, gained]))
        change = alone + float(np.sum(1 - figures[:, 0]) + np.sum(figures[:, 1]))
        images.append(ImageDrift(name, change, int(lost.sum()), int(gained.sum())))
    iou, score, landmarks = np.concatenate(pairs).T
    return Drift(
        score_threshold=score_threshold,
        pairs=len(iou),
        unpaired=unpaired,
        box_iou=_spread(iou, 5),
        score=_spread(score, 95),
        landmarks=_spread(landmarks[np.isfinite(landmarks)], 95),
        sizes=_by_size(np.concatenate(sizes)),
        changed=tuple(sorted(images, key=lambda image: -image.change)[:_LISTED]),
    )


def drift_fields(dataset: WiderFace, reference: Evaluation, found: Evaluation, score_threshold: float) -> dict[str, object]:
    """What a :class:`runtime_bench.record.Result` holds of the difference to its reference, by field."""
    drift = measure_drift(dataset, reference, found, score_threshold)
    examples = [
        Example(image.name, *(_faces(side.detections[image.name], score_threshold) for side in (reference, found)))
        for image in drift.changed[:_EXAMPLES]
    ]
    return {
        "ap_reference": reference.ap,
        "drop": ap_drop(reference.ap, found.ap),
        "drop_interval": drop_interval(dataset, reference, found),
        "drift": drift,
        "examples": tuple(examples),
    }


def _faces(detections: Detections, threshold: float) -> Faces:
    shown = detections.scores > threshold
    return Faces(
        tuple(tuple(round(float(side), 1) for side in box) for box in detections.boxes[shown]),
        tuple(round(float(score), 3) for score in detections.scores[shown]),
    )


def _shared(reference: Evaluation, found: Evaluation) -> list[str]:
    return [name for name in reference.detections if name in found.detections]


def _compare(before: Detections, after: Detections, threshold: float) -> tuple[np.ndarray, int]:
    """``(pairs, 3)`` IoU, score difference and landmark error in percent, NaN without landmarks; how many detections have no counterpart.

    A pair is a detection of each side that overlap each other more than any other. Within one side suppression has left no two that
    overlap much, so there is little to choose from. One that falls below the threshold still has its counterpart: the scores say so.
    """
    first, second = before.scores > threshold, after.scores > threshold
    if not len(before) or not len(after):
        return np.zeros((0, 3)), int(first.sum() + second.sum())
    iou = box_iou(torch.from_numpy(before.boxes), torch.from_numpy(after.boxes)).numpy()
    best = iou.argmax(axis=1)
    own = np.arange(len(before))
    paired = (iou.argmax(axis=0)[best] == own) & (iou[own, best] >= IOU)
    shown = np.flatnonzero(paired & (first | second[best]))
    other = best[shown]
    sides = before.boxes[shown, 2:] - before.boxes[shown, :2]
    apart = np.linalg.norm(after.landmarks[other] - before.landmarks[shown], axis=2)
    distances = apart.mean(axis=1) if apart.shape[1] else np.full(len(shown), np.nan)
    figures = np.column_stack(
        [
            iou[shown, other],
            np.abs(after.scores[other] - before.scores[shown]),
            100 * distances / np.sqrt(np.maximum(sides.prod(axis=1), 1e-6)),
        ]
    )
    return figures, int((first & ~paired).sum() + np.delete(second, best[paired]).sum())


def _found(faces: GroundTruth, detections: Detections, threshold: float) -> np.ndarray:
    """For each face whether a detection above the threshold claims it, ``(F,)`` bool."""
    found = np.zeros(len(faces.boxes), bool)
    shown = detections.boxes[detections.scores > threshold]
    if len(found) and len(shown):
        claimed, overlaps = claim_faces(faces.boxes, shown)
        found[claimed[overlaps]] = True
    return found


def _by_size(faces: np.ndarray) -> tuple[SizeDrift, ...]:
    """From ``(F, 4)``: height, found before, lost, gained."""
    sizes = np.searchsorted(HEIGHTS, faces[:, 0], side="right") - 1
    counts = [[int(np.sum(sizes == size)), *faces[sizes == size, 1:].sum(axis=0).astype(int).tolist()] for size in range(len(HEIGHTS))]
    return tuple(SizeDrift(*limits, *count) for limits, count in zip(zip(HEIGHTS, (*HEIGHTS[1:], None), strict=True), counts, strict=True))


def _spread(values: Sequence[float], worst: int) -> Spread | None:
    if not len(values):
        return None
    return Spread(float(np.mean(values)), float(np.median(values)), float(np.percentile(values, worst)))

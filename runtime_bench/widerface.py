"""WIDER FACE (Yang et al. 2016): the validation set, and average precision by its official protocol.

The protocol is that of the published MATLAB tools (``wider_eval.m``): scores are stretched to 0..1 over all images of the run; an image's
detections claim, best first, the face that they overlap most, at IoU of at least 0.5; a detection on a face outside the subset is
neither right nor wrong; precision and recall are read at 1,000 score levels and integrated under the VOC envelope.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torchvision.ops import box_iou

from model.errors import UserError
from model.files import require_inside, sha256
from model.postprocess import Detections, Thresholds

SUBSETS = ("easy", "medium", "hard")
IOU = 0.5
LEVELS = 1000
EVALUATION = Thresholds(score=0.02, nms_iou=0.4, top_k=5000, keep=750)
"""What the public RetinaFace evaluation keeps."""


@dataclass(frozen=True)
class GroundTruth:
    """The faces of one image."""

    boxes: np.ndarray
    """``(F, 4)`` float32: left, top, right, bottom in pixels of the image."""
    subsets: Mapping[str, np.ndarray]
    """For each name of :data:`SUBSETS`, ``(F,)`` bool: which faces belong to it."""


@dataclass(frozen=True)
class WiderFace:
    """Images with ground truth, by name (``event/file.jpg``), in evaluation order."""

    images: Path
    """The folder that the names are relative to."""
    faces: Mapping[str, GroundTruth]
    title: str
    """What to call the set where its figures are shown."""

    def __len__(self) -> int:
        return len(self.faces)

    def digest(self) -> str:
        """SHA-256 over names, files and faces; reads all files."""
        digest = hashlib.sha256()
        for name, faces in self.faces.items():
            subsets = b"".join(faces.subsets[subset].tobytes() for subset in SUBSETS)
            digest.update(f"{name}\0{sha256(self.images / name)}\0".encode() + faces.boxes.tobytes() + subsets)
        return digest.hexdigest()


def load_validation(root: Path, list_file: Path | None = None, limit: int | None = None) -> WiderFace:
    """Read the validation set of a WIDER FACE root: ``val/images/<event>/*.jpg`` and ``val/ground_truth/wider_*_val.mat``.

    Args:
        root: the folder.
        list_file: names to keep, one a line; all by default.
        limit: keep the first so many.

    Raises:
        UserError: a part of the layout is missing or damaged, the list names an unknown image, nothing is left, or image files are missing.
    """
    truth = read_ground_truth(root / "val" / "ground_truth")
    names = list(truth) if list_file is None else _read_list(list_file, truth)
    if limit is not None:
        names = names[:limit]
    if not names:
        raise UserError(f"no image to evaluate: {list_file or root} and --limit {limit} leave none")
    images = root / "val" / "images"
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images are missing under {images}, first {missing[0]}; pass --list with those that are there"
        )
    chosen = ([list_file.name] if list_file else []) + ([f"first {limit}"] if limit else [])
    title = f"WIDER FACE val ({', '.join(chosen)})" if chosen else "WIDER FACE val"
    return WiderFace(images, {name: truth[name] for name in names}, title)


def _read_list(path: Path, truth: Mapping[str, GroundTruth]) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the image list {path}: {error}") from None
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in truth:
            raise UserError(f"{path} names {name!r}, which is no image of the validation ground truth (expected event/file.jpg)")
    return names


def read_ground_truth(folder: Path) -> dict[str, GroundTruth]:
    """The faces of every validation image by name, from ``wider_{easy,medium,hard}_val.mat``."""
    return dict(_walk_ground_truth(folder))


def _walk_ground_truth(folder: Path) -> Iterator[tuple[str, GroundTruth]]:
    files = {subset: _read_mat(folder / f"wider_{subset}_val.mat") for subset in SUBSETS}
    try:
        shared = files[SUBSETS[0]]  # every file repeats events, names and boxes
        for event, (name,) in enumerate(shared["event_list"][:, 0]):
            for index, (file,) in enumerate(shared["file_list"][event, 0][:, 0]):
                boxes = shared["face_bbx_list"][event, 0][index, 0].astype(np.float32).reshape(-1, 4)
                subsets = {}
                for subset in SUBSETS:
                    kept = np.zeros(len(boxes), bool)
                    kept[files[subset]["gt_list"][event, 0][index, 0].ravel().astype(int) - 1] = True
                    subsets[subset] = kept
                boxes[:, 2:] += boxes[:, :2]
                yield require_inside(f"{name}/{file}.jpg", folder), GroundTruth(boxes, subsets)
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{folder} does not hold the official WIDER FACE ground truth ({error}); copy the .mat files again") from None


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no WIDER FACE ground truth: {path} is missing (the .mat files of the official eval_tools belong there)")
    try:
        return scipy.io.loadmat(path)
    except Exception as error:  # scipy raises whatever its binary reader stumbles over
        raise UserError(f"{path} is damaged ({error}); copy it again") from None


def average_precision(truth: Sequence[GroundTruth], detections: Sequence[Detections], counts: np.ndarray | None = None) -> dict[str, float]:
    """Average precision of each subset.

    Args:
        truth, detections: of the same images in the same order; detections best first.
        counts: of the same by :func:`count_levels`, where they are at hand.

    Returns:
        Percent for each name of :data:`SUBSETS`; NaN where the subset has no face in these images.
    """
    together = (count_levels(truth, detections) if counts is None else counts).sum(axis=0, dtype=np.float64)
    return dict(zip(SUBSETS, _area(together, _count_faces(truth).sum(axis=0)).tolist(), strict=True))


_CURVE_POINTS = 100


def precision_recall(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], counts: np.ndarray | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Recall and precision at every tenth score level, for each name of :data:`SUBSETS` that has a face; arguments as those of
    :func:`average_precision`."""
    together = (count_levels(truth, detections) if counts is None else counts).sum(axis=0, dtype=np.float64)
    faces = _count_faces(truth).sum(axis=0)
    step = LEVELS // _CURVE_POINTS
    curves = {}
    for subset, of_subset, total in zip(SUBSETS, together[:, step - 1 :: step], faces, strict=True):
        counted, hits = of_subset[of_subset[:, 0] > 0].T
        if total:
            curves[subset] = (hits / total, hits / counted)
    return curves


RESAMPLES = 1000
MINIMUM_IMAGES = 10
"""With fewer, resampling sees too little of how photographs differ to speak of an interval."""


def drop_intervals(
    truth: Sequence[GroundTruth],
    reference: Sequence[Detections],
    found: Sequence[Detections],
    counts: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> dict[str, tuple[float, float] | None]:
    """How far a drop in average precision may be due to the choice of images: its bootstrapped 95 % interval.

    Images are drawn with replacement (seeded) and both sides are scored on the same draw, with scores stretched as over all images.

    Args:
        truth, reference, found: of the same images in the same order; detections best first.
        counts: of the two by :func:`count_levels`, where they are at hand.

    Returns:
        The 2.5th and 97.5th percentile of ``AP of reference - AP of found``, percentage points, for each name of :data:`SUBSETS`;
        ``None`` where fewer than :data:`MINIMUM_IMAGES` have a face of the subset.
    """
    draws = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES).astype(np.float32)
    faces = _count_faces(truth)
    drops = np.zeros((RESAMPLES, len(SUBSETS)))
    for sign, detections, known in ((1, reference, counts[0]), (-1, found, counts[1])):
        of_images = count_levels(truth, detections) if known is None else known
        for column in range(len(SUBSETS)):
            drawn = (draws @ of_images[:, column].reshape(len(truth), -1)).reshape(RESAMPLES, LEVELS, 2)
            drops[:, column] += sign * _area(drawn.astype(np.float64), draws @ faces[:, column])
    enough = (faces > 0).sum(axis=0) >= MINIMUM_IMAGES
    # A draw may hold no face of a rare subset, and then has no AP.
    bounds = [tuple(np.nanpercentile(drops[:, column], (2.5, 97.5)).tolist()) if enough[column] else None for column in range(len(SUBSETS))]
    return dict(zip(SUBSETS, bounds, strict=True))


def _count_faces(truth: Sequence[GroundTruth]) -> np.ndarray:
    """``(images, subsets)``."""
    return np.array([[int(faces.subsets[subset].sum()) for subset in SUBSETS] for faces in truth], np.int64)


def count_levels(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> np.ndarray:
    """What average precision and all its relatives are made of.

    Returns:
        ``(images, subsets, LEVELS, 2)`` float32: detections that count and faces found, at each level; whole numbers below 2^24, so sums
        are exact.
    """
    stretched = _stretch_scores([found.scores for found in detections])
    of_images = np.zeros((len(truth), len(SUBSETS), LEVELS, 2), np.float32)
    for faces, found, scores, counts in zip(truth, detections, stretched, of_images, strict=True):
        # As the official tools do: without a face in the image, detections are not counted against it.
        if len(found) and len(faces.boxes):
            claimed, overlaps = claim_faces(faces.boxes, found.boxes)
            # How many detections reach each level; they are sorted, so the rest is cumulative sums.
            reach = np.searchsorted(-scores, -_levels(), side="right")
            for of_subset, subset in zip(counts, SUBSETS, strict=True):
                inside = faces.subsets[subset]
                ignored = overlaps & ~inside[claimed]
                found_first = np.zeros(len(found), bool)
                hits = np.flatnonzero(overlaps & inside[claimed])
                found_first[hits[np.unique(claimed[hits], return_index=True)[1]]] = True
                for column, counted in enumerate((~ignored, found_first)):
                    of_subset[:, column] = np.concatenate([[0], np.cumsum(counted)])[reach]
    return of_images


def _levels() -> np.ndarray:
    return 1 - np.arange(1, LEVELS + 1) / LEVELS


def _stretch_scores(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    filled = [image for image in scores if len(image)]
    if not filled:
        return list(scores)
    low, high = min(image.min() for image in filled), max(image.max() for image in filled)
    spread = float(high - low) or 1.0
    return [(image.astype(np.float64) - low) / spread for image in scores]


def claim_faces(faces: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each detection, the face that it overlaps most, and whether by enough.

    The official tools count pixels: a box from 0 to 1 is two pixels wide. Hence the 1 on right and bottom.
    """
    inclusive = np.asarray([0, 0, 1, 1], np.float64)
    iou = box_iou(torch.from_numpy(found + inclusive), torch.from_numpy(faces + inclusive)).numpy()
    claimed = iou.argmax(axis=1)
    return claimed, iou[np.arange(len(found)), claimed] >= IOU


def _area(counts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area under the envelope of precision over recall (VOC 2010 and later), percent; NaN where there is no face.

    Args:
        counts: ``(..., LEVELS, 2)`` float64, detections that count and faces found, at each level.
        faces: ``(...)`` how many there are to find.
    """
    counted, hits = counts[..., 0], counts[..., 1]
    precision = np.divide(hits, counted, out=np.zeros_like(counted), where=counted > 0)
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # Beyond the last level recall would go on to 1 at a precision of 0.
    gained = np.diff(hits, axis=-1, prepend=0)
    return 100.0 * np.einsum("...l,...l->...", gained, envelope) / np.where(faces > 0, faces, np.nan)

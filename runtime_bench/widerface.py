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
    cut = limit is not None and limit < len(names)
    names = names[:limit]
    if not names:
        raise UserError(f"no image to evaluate: {list_file or root} and --limit {limit} leave none")
    images = root / "val" / "images"
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images are missing under {images}, first {missing[0]}; pass --list with those that are there"
        )
    chosen = ([list_file.name] if list_file else []) + ([f"first {limit}"] if cut else [])
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


def average_precision(truth: Sequence[GroundTruth], detections: Sequence[Detections], counts: Counts | None = None) -> dict[str, float]:
    """Average precision of each subset.

    Args:
        truth, detections: of the same images in the same order; detections best first.
        counts: of the same by :func:`count_levels`, where they are at hand.

    Returns:
        Percent for each name of :data:`SUBSETS`; NaN where the subset has no face in these images.
    """
    together = (counts or count_levels(truth, detections)).together()
    return dict(zip(SUBSETS, _area(together, _count_faces(truth).sum(axis=0)).tolist(), strict=True))


_CURVE_POINTS = 100


def precision_recall(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], counts: Counts | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Recall and precision at every tenth score level, for each name of :data:`SUBSETS` that has a face; arguments as those of
    :func:`average_precision`."""
    together = (counts or count_levels(truth, detections)).together()
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
_BLOCK = 512
"""Images whose counts are spread out over all levels at once, 8 kB each; their sums stay below 2^24, where float32 is exact."""


def drop_intervals(
    truth: Sequence[GroundTruth],
    reference: Sequence[Detections],
    found: Sequence[Detections],
    counts: tuple[Counts | None, Counts | None] = (None, None),
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
    random, shares = np.random.default_rng(0), np.full(len(truth), 1 / len(truth))
    draws = np.empty((RESAMPLES, len(truth)), np.uint16)
    for draw in draws:
        draw[:] = random.multinomial(len(truth), shares)
    faces = _count_faces(truth)
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(truth), _BLOCK)]
    totals = sum(draws[:, block].astype(np.float32) @ faces[block].astype(np.float32) for block in blocks)
    drops = np.zeros((RESAMPLES, len(SUBSETS)))
    for sign, detections, known in ((1, reference, counts[0]), (-1, found, counts[1])):
        of_images = known or count_levels(truth, detections)
        for column in range(len(SUBSETS)):
            drawn = np.zeros((RESAMPLES, 2 * LEVELS))
            for block in blocks:
                drawn += draws[:, block].astype(np.float32) @ of_images.of_block(block, column).reshape(-1, 2 * LEVELS)
            drops[:, column] += sign * _area(drawn.reshape(RESAMPLES, LEVELS, 2), totals[:, column])
    enough = (faces > 0).sum(axis=0) >= MINIMUM_IMAGES
    # A draw may hold no face of a rare subset, and then has no AP.
    bounds = [tuple(np.nanpercentile(drops[:, column], (2.5, 97.5)).tolist()) if enough[column] else None for column in range(len(SUBSETS))]
    return dict(zip(SUBSETS, bounds, strict=True))


def _count_faces(truth: Sequence[GroundTruth]) -> np.ndarray:
    """``(images, subsets)``."""
    return np.array([[int(faces.subsets[subset].sum()) for subset in SUBSETS] for faces in truth], np.int64)


@dataclass(frozen=True)
class Counts:
    """What average precision and all its relatives are made of: a row for each detection, image by image."""

    ends: np.ndarray
    """``(images,)``: how many rows there are up to each image's last one. Images without a face have none: as in the official tools,
    detections are not counted against them."""
    levels: np.ndarray
    """``(D,)`` int16: the first score level that each detection reaches."""
    marks: np.ndarray
    """``(D, subsets, 2)`` bool: whether it counts, and whether it is the first to find a face."""

    def together(self) -> np.ndarray:
        """``(subsets, LEVELS, 2)`` float64: detections that count and faces found at each level, of all images."""
        at_levels = np.zeros((len(SUBSETS), LEVELS, 2))
        for column, of_subset in enumerate(at_levels):
            for mark in range(2):
                of_subset[:, mark] = np.bincount(self.levels[self.marks[:, column, mark]], minlength=LEVELS)
        return at_levels.cumsum(axis=1)

    def of_block(self, images: slice, column: int) -> np.ndarray:
        """``(images, LEVELS, 2)`` float32: the same of each of these images, for one subset."""
        ends = self.ends[images]
        first = self.ends[images.start - 1] if images.start else 0
        owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=first))
        at_levels = np.zeros((len(ends), LEVELS, 2), np.float32)
        np.add.at(at_levels, (owners, self.levels[first : ends[-1]]), self.marks[first : ends[-1], column])
        return at_levels.cumsum(axis=1, out=at_levels)


def count_levels(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> Counts:
    """Claim faces, image by image; see :class:`Counts`."""
    stretched = _stretch_scores([found.scores for found in detections])
    levels, marks, ends, end = [np.zeros(0, np.int16)], [np.zeros((0, len(SUBSETS), 2), bool)], [], 0
    for faces, found, scores in zip(truth, detections, stretched, strict=True):
        if len(found) and len(faces.boxes):
            claimed, overlaps = claim_faces(faces.boxes, found.boxes)
            of_image = np.zeros((len(found), len(SUBSETS), 2), bool)
            for column, subset in enumerate(SUBSETS):
                inside = faces.subsets[subset]
                hits = np.flatnonzero(overlaps & inside[claimed])
                of_image[:, column, 0] = ~(overlaps & ~inside[claimed])
                of_image[hits[np.unique(claimed[hits], return_index=True)[1]], column, 1] = True
            levels.append(np.searchsorted(-_levels(), -scores).astype(np.int16))
            marks.append(of_image)
            end += len(found)
        ends.append(end)
    return Counts(np.array(ends), np.concatenate(levels), np.concatenate(marks))


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

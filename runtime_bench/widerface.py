"""WIDER FACE (Yang et al. 2016): the validation set, and average precision by its official protocol.

The protocol is that of the published MATLAB tools (``wider_eval.m``): scores are stretched to 0..1 over all images of the run; an image's
detections claim, best first, the face that they overlap most, at IoU of at least 0.5; a detection on a face outside the subset is
neither right nor wrong; precision and recall are read at 1,000 score levels and integrated under the VOC envelope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from torchvision.ops import box_iou

from model.errors import UserError
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
                yield f"{name}/{file}.jpg", GroundTruth(boxes, subsets)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{folder} does not hold the official WIDER FACE ground truth ({error}); copy the .mat files again") from None


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no WIDER FACE ground truth: {path} is missing (the .mat files of the official eval_tools belong there)")
    try:
        return scipy.io.loadmat(path)
    except Exception as error:  # scipy raises whatever its binary reader stumbles over
        raise UserError(f"{path} is damaged ({error}); copy it again") from None


def average_precision(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> dict[str, float]:
    """Average precision of each subset.

    Args:
        truth, detections: of the same images in the same order; detections best first.

    Returns:
        Percent for each name of :data:`SUBSETS`; NaN where the subset has no face in these images.
    """
    stretched = _stretch_scores([found.scores for found in detections])
    counts = {subset: np.zeros((LEVELS, 2)) for subset in SUBSETS}  # detections that count, faces found; at each level
    for faces, found, scores in zip(truth, detections, stretched, strict=True):
        if not len(found) or not len(faces.boxes):
            continue  # as the official tools do: without a face in the image, detections are not counted against it
        claimed, overlaps = _claims(faces.boxes, found.boxes)
        # How many detections reach each level; they are sorted, so the rest is cumulative sums.
        reach = np.searchsorted(-scores, -_levels(), side="right")
        for subset in SUBSETS:
            inside = faces.subsets[subset]
            ignored = overlaps & ~inside[claimed]
            found_first = np.zeros(len(found), bool)
            hits = np.flatnonzero(overlaps & inside[claimed])
            found_first[hits[np.unique(claimed[hits], return_index=True)[1]]] = True
            for column, counted in enumerate((~ignored, found_first)):
                counts[subset][:, column] += np.concatenate([[0], np.cumsum(counted)])[reach]
    return {subset: _area(counts[subset], sum(int(faces.subsets[subset].sum()) for faces in truth)) for subset in SUBSETS}


def _levels() -> np.ndarray:
    return 1 - np.arange(1, LEVELS + 1) / LEVELS


def _stretch_scores(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    filled = [image for image in scores if len(image)]
    if not filled:
        return list(scores)
    low, high = min(image.min() for image in filled), max(image.max() for image in filled)
    spread = float(high - low) or 1.0
    return [(image.astype(np.float64) - low) / spread for image in scores]


def _claims(faces: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each detection, the face that it overlaps most, and whether by enough.

    The official tools count pixels: a box from 0 to 1 is two pixels wide. Hence the 1 on right and bottom.
    """
    inclusive = np.asarray([0, 0, 1, 1], np.float64)
    iou = box_iou(torch.from_numpy(found + inclusive), torch.from_numpy(faces + inclusive)).numpy()
    claimed = iou.argmax(axis=1)
    return claimed, iou[np.arange(len(found)), claimed] >= IOU


def _area(counts: np.ndarray, faces: int) -> float:
    """Area under the envelope of precision over recall (VOC 2010 and later), percent."""
    if not faces:
        return float("nan")
    counted, hits = counts.T
    recall = np.concatenate([[0.0], hits / faces, [1.0]])
    precision = np.concatenate([[0.0], np.divide(hits, counted, out=np.zeros(LEVELS), where=counted > 0), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return 100.0 * float(np.sum(np.diff(recall) * envelope[1:]))

"""Training photographs: WIDER FACE in its two public label layouts, and folders of photographs without labels.

Photographs are decoded once, scaled down if they are large, and kept in memory as bytes (2,000 take about 3 GB), so that the
processor has the step to do and not JPEGs. Sets that are too large for that are streamed: decoded each time that they are drawn.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from model.errors import UserError
from model.files import require_inside
from model.preprocess import load_image
from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace

RETINAFACE_LABELS = "label.txt"
OFFICIAL_LABELS = "wider_face_train_bbx_gt.txt"
HELD_OUT_HEIGHTS = (50, 30, 10)
"""Least height of a face in each of the subsets that :func:`hold_out` judges by, pixels."""
_FARTHEST = 1e6
"""Pixels: no photograph is that large, and beyond it float32 no longer tells pixels apart."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Faces:
    """The labelled faces of a photograph."""

    boxes: np.ndarray
    """``(F, 4)`` float32: left, top, right, bottom in pixels."""
    landmarks: np.ndarray
    """``(F, 5, 2)`` float32: x, y of :data:`model.postprocess.LANDMARK_NAMES`; NaN where unknown."""
    doubtful: np.ndarray
    """``(F,)`` bool: perhaps a face, so neither to be found nor taught as background."""

    def __len__(self) -> int:
        return len(self.boxes)

    def scaled(self, ratio: float) -> Faces:
        return Faces(self.boxes * np.float32(ratio), self.landmarks * np.float32(ratio), self.doubtful)


NO_FACES = Faces(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool))


@dataclass(frozen=True)
class Sample:
    """A photograph in memory."""

    name: str
    pixels: np.ndarray
    """``(H, W, 3)`` uint8 RGB."""
    faces: Faces | None
    """``None`` where nobody has labelled it."""

    def read(self) -> Sample:
        return self


@dataclass(frozen=True)
class StreamedSample:
    """A photograph on disk."""

    path: Path
    name: str
    faces: Faces | None
    """In pixels of the file."""
    longest_side: int

    def read(self) -> Sample:
        """Decode it; a :class:`UserError` if that fails."""
        return _read(self.path, self.name, self.faces, self.longest_side)


Entry = tuple[Path, str, Faces | None]
"""Where a photograph is, its name, its faces."""
Improve = Callable[[str, Faces | None], Faces | None]
"""From a photograph's name and faces to better faces, in pixels of the file; see :func:`train.pseudo.read_pseudo_labels`."""


def read_labels(root: Path) -> tuple[Path, dict[str, Faces]]:
    """Labels of the training set of a WIDER FACE root, in whichever public layout is there.

    Looks for ``train/label.txt`` (RetinaFace: boxes and landmarks), then for ``wider_face_train_bbx_gt.txt`` (official: boxes) in
    ``train/``, ``wider_face_split/`` and the root itself.

    Returns:
        The folder that names are relative to, and the faces of every image by name (``event/file.jpg``).

    Raises:
        UserError: no label file, or one that is damaged (with the number of the line).
    """
    images = next((folder for folder in (root / "train" / "images", root / "WIDER_train" / "images") if folder.is_dir()), None)
    if images is None:
        raise UserError(f"{root} holds no training images (train/images/<event>/*.jpg expected); pass another --data")
    candidates = [
        root / "train" / RETINAFACE_LABELS,
        *(folder / OFFICIAL_LABELS for folder in (root / "train", root / "wider_face_split", root)),
    ]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"no training labels: neither {candidates[0]} nor {OFFICIAL_LABELS} in {root}, its train or its wider_face_split")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text file; copy it again") from None
    labels = _read_retinaface(lines, path) if path.name == RETINAFACE_LABELS else _read_official(lines, path)
    if not labels:
        raise UserError(f"{path} names no image")
    return images, labels


def _read_retinaface(lines: Sequence[str], path: Path) -> dict[str, Faces]:
    """``# event/file.jpg``, then a line for each face: x y w h, five times x y visible, blur."""
    rows: dict[str, list[list[float]]] = {}
    name = None
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            name = require_inside(line[1:].strip(), f"{path}, line {number}:")
            rows[name] = []
        elif line.strip():
            if name is None:
                raise UserError(f"{path}, line {number}: a face before the first image ('# event/file.jpg')")
            values = _numbers(line, path, number)
            if len(values) not in (4, 19, 20):
                raise UserError(f"{path}, line {number}: {len(values)} numbers, expected 4, 19 or 20 (x y w h, five landmarks, blur)")
            rows[name].append(values)
    return {name: _faces(values) for name, values in rows.items()}


def _read_official(lines: Sequence[str], path: Path) -> dict[str, Faces]:
    """Name, count, then so many lines x y w h and six flags; an image without faces has one line of zeros."""
    labels = {}
    position = 0
    while position < len(lines):
        name = require_inside(lines[position].strip(), f"{path}, line {position + 1}:")
        position += 1
        if not name:
            continue
        if position >= len(lines) or not re.fullmatch(r"\d{1,9}", lines[position].strip(), re.ASCII):
            raise UserError(f"{path}, line {position + 1}: the number of faces of {name} expected")
        count = int(lines[position])
        position += 1
        last = position + max(count, 1)
        if last > len(lines):
            if count:
                raise UserError(f"{path} ends within the faces of {name}; copy it again")
            last = len(lines)
        rows = [_numbers(line, path, number) for number, line in enumerate(lines[position:last], position + 1)]
        if any(len(row) < 4 for row in rows):
            raise UserError(f"{path}, after line {position}: a face of {name} has fewer than 4 numbers")
        # The eighth number is the official flag "invalid": too small or unreadable, to be left out.
        labels[name] = _faces([row[:4] for row in rows[:count] if len(row) < 8 or not row[7]])
        position = last
    return labels


def _numbers(line: str, path: Path, number: int) -> list[float]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        raise UserError(f"{path}, line {number}: not a row of numbers: {line[:60]!r}") from None
    if not np.abs(values).max(initial=0) <= _FARTHEST:
        raise UserError(f"{path}, line {number}: a number that is not finite, or no place in a photograph")
    return values


def _faces(rows: Sequence[Sequence[float]]) -> Faces:
    if not rows:
        return NO_FACES
    boxes = np.asarray([row[:4] for row in rows], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    landmarks = np.full((len(rows), 5, 2), np.nan, np.float32)
    for index, row in enumerate(rows):
        if len(row) >= 19:
            points = np.asarray(row[4:19], np.float32).reshape(5, 3)[:, :2]
            if (points >= 0).all():  # -1 is the layout's word for unknown
                landmarks[index] = points
    return Faces(boxes, landmarks, np.zeros(len(rows), bool))


def _clip(faces: Faces, width: int, height: int) -> Faces:
    """Boxes cut at the photograph's border; those that have no area left are dropped."""
    boxes = faces.boxes.clip(0, [width, height, width, height]).astype(np.float32)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    return Faces(boxes[kept], faces.landmarks[kept], faces.doubtful[kept])


def hold_out(root: Path, every: int, others: bool = False, limit: int | None = None) -> WiderFace:
    """Every so many-th training photograph (by name) as a set to judge by, so that the validation set has no say in what is shipped; or all
    the ``others``; or a ``limit``ed number of either, spread over the set.

    Its subsets go by the height of faces alone, where WIDER FACE's own go by how hard they are to propose: easy from 50 pixels, medium from
    30, hard from 10. Figures are not comparable with those of the validation set.
    """
    images, labels = read_labels(root)
    truth = {}
    names = [name for index, name in enumerate(sorted(labels)) if (index % every == 0) != others]
    step = 1 if limit is None else max(1, -(-len(names) // limit))
    for name in names[::step]:
        boxes = labels[name].boxes
        height = boxes[:, 3] - boxes[:, 1]
        truth[name] = GroundTruth(boxes, {subset: height >= least for subset, least in zip(SUBSETS, HELD_OUT_HEIGHTS, strict=True)})
    return WiderFace(images, truth, f"WIDER FACE train ({'without ' if others else ''}every {every}th)")


def load_labelled(
    root: Path, longest_side: int, in_memory: bool = True, held_out: int = 0, improve: Improve | None = None
) -> list[Sample] | list[StreamedSample]:
    """The training photographs of a WIDER FACE root.

    Args:
        root: the folder.
        held_out: leave out those of :func:`hold_out`; 0 for none.
        improve: what to make of the labels.
        longest_side: larger photographs are scaled down to it, pixels.
        in_memory: decode them now; otherwise when they are drawn, and only missing files are noticed now.

    Raises:
        UserError: as :func:`read_labels`, or not one photograph could be read.
    """
    images, labels = read_labels(root)
    names = [name for index, name in enumerate(sorted(labels)) if not held_out or index % held_out]
    return _load([(images / name, name, labels[name]) for name in names], longest_side, str(images), in_memory, improve)


def load_unlabelled(
    folder: Path, longest_side: int, in_memory: bool = True, improve: Improve | None = None
) -> list[Sample] | list[StreamedSample]:
    """All photographs under a folder; arguments as :func:`load_labelled`."""
    if not folder.is_dir():
        raise UserError(f"no such folder of photographs: {folder}")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(f"{folder} holds no photograph ({', '.join(sorted(_SUFFIXES))})")
    return _load([(path, str(path.relative_to(folder)), None) for path in files], longest_side, str(folder), in_memory, improve)


def _load(
    entries: list[Entry], longest_side: int, what: str, in_memory: bool, improve: Improve | None
) -> list[Sample] | list[StreamedSample]:
    if improve is not None:
        entries = [(path, name, improve(name, faces)) for path, name, faces in entries]
    streamed = [StreamedSample(*entry, longest_side) for entry in entries]
    with ThreadPoolExecutor(2) as threads:  # Pillow decodes without the GIL
        read = threads.map(_try_to_read if in_memory else _find, streamed)
        found = list(tqdm(read, total=len(entries), desc=f"reading {what}", disable=None, leave=False))
    faults = [sample for sample in found if isinstance(sample, UserError)]
    if len(faults) == len(entries):
        raise UserError(f"not one of the {len(entries)} photographs of {what} can be read, first: {faults[0]}")
    if faults:
        print(f"warning: {len(faults)} of {len(entries)} photographs of {what} skipped, first: {faults[0]}", file=sys.stderr)
    return [sample for sample in found if not isinstance(sample, UserError)]


def _try_to_read(sample: StreamedSample) -> Sample | UserError:
    try:
        return sample.read()
    except UserError as error:
        return error


def _find(sample: StreamedSample) -> StreamedSample | UserError:
    return sample if sample.path.is_file() else UserError(f"no such photograph: {sample.path}")


def _read(path: Path, name: str, faces: Faces | None, longest_side: int) -> Sample:
    pixels = load_image(path)
    height, width = pixels.shape[:2]
    if faces is not None:
        faces = _clip(faces, width, height)
    ratio = longest_side / max(height, width)
    if ratio < 1:
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        faces = None if faces is None else faces.scaled(ratio)
    return Sample(name, pixels, faces)

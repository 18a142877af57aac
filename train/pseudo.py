"""Labels from a slow teacher: a network looks at each photograph at several scales and in the mirror; what the views agree on is kept.

Data distillation (Radosavovic et al. 2018): an ensemble over transformed views of one network knows more than the network, and its answers
can be computed once. They are kept in a file of JSON lines: first the settings, then a photograph a line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
import torch
from msgspec import Struct
from torchvision.ops import box_iou
from tqdm import tqdm

from model.checkpoint import load_checkpoint
from model.errors import UserError
from model.files import sha256
from model.postprocess import Detections, Thresholds
from model.preprocess import load_image
from runtime_bench.detect import FaceDetector, torch_detector
from runtime_bench.views import View, look
from train.widerface_data import Faces, StreamedSample

VIEWS = (View(0.5), View(1), View(1, True), View(2), View(3, True))
LARGEST_VIEW = 4_000_000
"""Views of more pixels are left out."""
FACE_SIDES = (12.0, 400.0)
"""Only faces between these sides in a view, pixels, are that view's business: the network is at home there."""
SAME_FACE = 0.5
"""IoU from which detections of different views are one face."""
THRESHOLDS = Thresholds(score=0.05)
CERTAIN = 0.7
"""Consensus from which an unlabelled face is one."""
UNCERTAIN = 0.15
"""Consensus below which there is none. Between the two it is doubtful."""
ATTACH = 0.4
"""IoU from which landmarks belong to a labelled face."""


class PseudoFaces(Struct, frozen=True, forbid_unknown_fields=True):
    """What the views agree on for one photograph; a line of the file."""

    name: str
    labelled: bool
    """From the labelled set, where boxes are known and landmarks are wanted."""
    boxes: list[tuple[float, float, float, float]]
    """xyxy in pixels of the photograph."""
    landmarks: list[list[tuple[float, float]]]
    scores: list[float]
    """Consensus: the mean over the views whose business the face is of what they give it."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What decides the labels; the first line of the file."""

    teacher: str
    """SHA-256 of its checkpoint."""
    views: tuple[tuple[float, bool], ...] = VIEWS
    largest_view: int = LARGEST_VIEW
    face_sides: tuple[float, float] = FACE_SIDES
    same_face: float = SAME_FACE


def make_pseudo_labels(teacher: Path, photographs: Iterable[StreamedSample], out: Path) -> None:
    """Look at every photograph and write the file. One that was broken off goes on where it was.

    Raises:
        UserError: ``out`` exists, or was begun with another teacher or other views, or the teacher gives no landmarks.
    """
    if out.exists():
        raise UserError(f"{out} exists; remove it to make it again")
    settings = Settings(sha256(teacher))
    checkpoint = load_checkpoint(teacher)
    if not checkpoint.detector.config.landmarks:
        raise UserError(f"{teacher} is a {checkpoint.detector.config.variant}, which gives no landmarks; take a teacher that does")
    detector = torch_detector(checkpoint, None)
    partial = out.with_name(out.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    done = _begun(partial, settings)
    with partial.open("ab") as file:
        if not file.tell():
            file.write(msgspec.json.encode(settings) + b"\n")
        waiting = [sample for sample in photographs if (sample.faces is not None, sample.name) not in done]
        for sample in tqdm(waiting, desc="looking", unit="image", disable=None):
            try:
                image = load_image(sample.path)
            except UserError as error:
                tqdm.write(f"left out: {error}", file=sys.stderr)
                continue
            found = consult(detector, image)
            line = PseudoFaces(
                sample.name,
                sample.faces is not None,
                *(np.round(values.astype(float), 2).tolist() for values in (found.boxes, found.landmarks)),
                np.round(found.scores.astype(float), 4).tolist(),
            )
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
    partial.replace(out)


def _begun(partial: Path, settings: Settings) -> set[tuple[bool, str]]:
    """What an earlier call has done; a line that it did not finish is cut off."""
    if not partial.is_file():
        return set()
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        partial.write_bytes(whole)
    if not whole:
        return set()
    first, *lines = whole.splitlines()
    try:
        if msgspec.json.decode(first, type=Settings) != settings:
            raise UserError(f"{partial} was begun with another teacher or other views; remove it")
        return {(line.labelled, line.name) for line in map(msgspec.json.Decoder(PseudoFaces).decode, lines)}
    except msgspec.MsgspecError as error:
        raise UserError(f"{partial} is damaged ({error}); remove it") from None


def read_pseudo_labels(path: Path) -> Callable[[str, Faces | None], Faces | None]:
    """What :func:`make_pseudo_labels` wrote, as a function from a photograph's name and faces to better faces.

    Labelled photographs get landmarks, and faces that the labels may have missed are doubtful; unlabelled ones get faces, certain and
    doubtful. Photographs that nobody has looked at stay as they are.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    try:
        first, *lines = path.read_bytes().splitlines()
        msgspec.json.decode(first, type=Settings)
        found = [msgspec.json.decode(line, type=PseudoFaces) for line in lines]
    except FileNotFoundError:
        raise UserError(f"no such file of pseudo-labels: {path}; make it with python -m train pseudo") from None
    except (ValueError, RecursionError, OSError) as error:  # msgspec's are ValueErrors
        raise UserError(f"{path} holds no pseudo-labels ({error}); make it again") from None
    for line in found:
        if not len(line.boxes) == len(line.landmarks) == len(line.scores) or any(len(points) != 5 for points in line.landmarks):
            raise UserError(f"{path}: boxes, landmarks and scores of {line.name!r} do not go together; make it again")
    labels = {(line.labelled, line.name): line for line in found}

    def improve(name: str, faces: Faces | None) -> Faces | None:
        pseudo = labels.get((faces is not None, name))
        return faces if pseudo is None else combine(faces, pseudo)

    return improve


def consult(detector: FaceDetector, image: np.ndarray) -> Detections:
    """Faces of ``(H, W, 3)`` uint8 RGB by all views; scores are consensus."""
    pixels = image.shape[0] * image.shape[1]
    views = [view for view in VIEWS if view.scale <= 1 or pixels * view.scale**2 <= LARGEST_VIEW]
    return agree([(view.scale, found) for view, found in look(detector, image, views, THRESHOLDS)])


def agree(seen: list[tuple[float, Detections]]) -> Detections:
    """Merge what views say, given as (scale, detections in pixels of the photograph).

    Boxes and landmarks are means by score (box voting, Gidaris and Komodakis 2015, section 4); scores are consensus.
    """
    boxes, scores, landmarks = (np.concatenate([getattr(found, field) for _, found in seen]) for field in ("boxes", "scores", "landmarks"))
    view = np.repeat(np.arange(len(seen)), [len(found) for _, found in seen])
    scales = np.asarray([scale for scale, _ in seen])
    at_home = _at_home(boxes, scales)[np.arange(len(boxes)), view]
    boxes, scores, landmarks, view = boxes[at_home], scores[at_home], landmarks[at_home], view[at_home]
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    free = np.ones(len(boxes), bool)
    merged = []
    for best in np.argsort(-scores, kind="stable"):
        if not free[best]:
            continue
        group = np.flatnonzero(free & (overlaps[best] >= SAME_FACE))
        free[group] = False
        weights = scores[group] / scores[group].sum()
        votes = np.zeros(len(seen))
        np.maximum.at(votes, view[group], scores[group])
        box = weights @ boxes[group]
        asked = _at_home(box[None], scales)[0] | (votes > 0)
        merged.append((box, votes.sum() / asked.sum(), np.einsum("g,gpx->px", weights, landmarks[group])))
    merged.sort(key=lambda face: -face[1])
    if not merged:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32))
    return Detections(*(np.asarray(values, np.float32) for values in zip(*merged, strict=True)))


def _at_home(boxes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """``(F, V)``: whether each face is of a size that each view sees well."""
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))[:, None] * scales
    return (sides >= FACE_SIDES[0]) & (sides <= FACE_SIDES[1])


def combine(faces: Faces | None, pseudo: PseudoFaces) -> Faces:
    """Labels and pseudo-labels of one photograph; ``None`` where nobody has labelled it."""
    boxes = np.asarray(pseudo.boxes, np.float32).reshape(-1, 4)
    landmarks = np.asarray(pseudo.landmarks, np.float32).reshape(-1, 5, 2)
    scores = np.asarray(pseudo.scores)
    if faces is None:
        kept = scores >= UNCERTAIN
        return Faces(boxes[kept], landmarks[kept], scores[kept] < CERTAIN)
    overlaps = box_iou(torch.from_numpy(faces.boxes), torch.from_numpy(boxes)).numpy()
    points = faces.landmarks.copy()
    missed = scores >= CERTAIN
    if overlaps.size:
        missed &= overlaps.max(axis=0) < ATTACH
        # A face and a detection belong together where each is the other's best.
        best, owner = overlaps.argmax(axis=1), overlaps.argmax(axis=0)
        mutual = (owner[best] == np.arange(len(faces))) & (overlaps.max(axis=1) >= ATTACH) & (scores[best] >= UNCERTAIN)
        unknown = np.isnan(points).any(axis=(1, 2))
        points[mutual & unknown] = landmarks[best[mutual & unknown]]
    return Faces(
        np.concatenate([faces.boxes, boxes[missed]]),
        np.concatenate([points, np.full_like(landmarks[missed], np.nan)]),
        np.concatenate([faces.doubtful, np.ones(int(missed.sum()), bool)]),
    )

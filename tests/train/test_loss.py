"""Anchors, targets and loss terms on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from model.anchors import make_anchors
from model.config import VARIANTS
from model.detector import RawOutputs
from model.postprocess import decode_boxes, decode_landmarks
from train.loss import (
    Targets,
    choose_adaptively,
    corners,
    decode,
    detection_loss,
    distillation_loss,
    match,
    mean_answers,
    mirror_answers,
    overlap_loss,
)

CONFIG = VARIANTS["retinaface"]
ANCHORS = torch.tensor(make_anchors(64, 64, CONFIG.strides, CONFIG.min_sizes))
LEVELS = [64, 16, 4]
NO_POINTS = torch.full((1, 5, 2), float("nan"))


def _match(
    boxes: list[list[float]], ignored: bool = False, landmarks: torch.Tensor | None = None, levels: list[int] | None = None
) -> Targets:
    points = torch.full((len(boxes), 5, 2), float("nan")) if landmarks is None else landmarks
    faces = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return match(faces, points, ANCHORS, CONFIG.variances, torch.full((len(boxes),), ignored), levels)


def test_a_face_as_an_anchor_is() -> None:
    x, y, side, _ = ANCHORS[20].tolist()
    targets = _match([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
    assert targets.labels[20] == 1
    torch.testing.assert_close(targets.boxes[20], torch.zeros(4), rtol=0, atol=1e-5)


def test_coding_is_the_inverse_of_decoding() -> None:
    landmarks = torch.tensor([[[20.0, 22], [34, 21], [27, 30], [22, 38], [33, 37]]])
    targets = _match([[13, 12, 41, 46]], landmarks=landmarks)
    found = targets.labels == 1
    assert found.any()
    boxes = decode_boxes(targets.boxes[found].numpy(), ANCHORS[found].numpy(), CONFIG.variances)
    np.testing.assert_allclose(boxes, np.tile([13, 12, 41, 46], (len(boxes), 1)), atol=1e-3)
    points = decode_landmarks(targets.landmarks[found].numpy(), ANCHORS[found].numpy(), CONFIG.variances)
    np.testing.assert_allclose(points, np.tile(landmarks.numpy(), (len(points), 1, 1)), atol=1e-3)


def test_a_face_that_no_anchor_fits_gets_its_best_one() -> None:
    assert (_match([[10, 10, 22, 17]]).labels == 1).sum() == 1  # IoU 0.33 at most
    assert (_match([[10, 10, 14, 12]]).labels == 1).sum() == 0  # below 0.2: hopeless


def test_two_faces_do_not_steal_from_each_other() -> None:
    targets = _match([[8, 8, 24, 24], [9, 9, 25, 25]])
    decoded = decode_boxes(targets.boxes[targets.labels == 1].numpy(), ANCHORS[targets.labels == 1].numpy(), CONFIG.variances)
    assert {tuple(np.round(box).astype(int)) for box in decoded} == {(8, 8, 24, 24), (9, 9, 25, 25)}


@pytest.mark.parametrize("levels", [None, LEVELS])
def test_ignored_faces_are_neither_faces_nor_background(levels: list[int] | None) -> None:
    box = [[8.0, 8, 24, 24]]
    taught, ignored = _match(box, levels=levels), _match(box, ignored=True, levels=levels)
    assert (taught.labels == 1).any()
    assert not (ignored.labels == 1).any()
    assert (ignored.labels[taught.labels == 1] == -1).all()
    assert (ignored.labels == 0).any()


def test_adaptive_choice_against_the_paper() -> None:
    """Algorithm 1 of ATSS (Zhang et al. 2020), a face and an anchor at a time."""
    anchors = torch.tensor(make_anchors(128, 128, CONFIG.strides, CONFIG.min_sizes))
    random = np.random.default_rng(0)
    places, sides = random.uniform(10, 118, (12, 2)), random.uniform(6, 90, (12, 2))
    boxes = torch.tensor(np.concatenate([places - sides / 2, places + sides / 2], axis=1), dtype=torch.float32)
    overlaps = box_iou(boxes, corners(anchors))
    found = choose_adaptively(boxes, anchors, overlaps, [256, 64, 16])
    for face, (left, top, right, bottom) in enumerate(boxes.tolist()):
        candidates = []
        for first, count in ((0, 512), (512, 128), (640, 32)):
            distance = [
                math.dist(anchor[:2], ((left + right) / 2, (top + bottom) / 2)) for anchor in anchors[first : first + count].tolist()
            ]
            candidates += [first + int(index) for index in np.argsort(distance, kind="stable")[:18]]  # 9 cells of 2 anchors
        overlap = [float(overlaps[face, index]) for index in candidates]
        threshold = np.mean(overlap) + np.std(overlap, ddof=1)
        expected = {
            index
            for index, value in zip(candidates, overlap, strict=True)
            if value >= threshold and left < anchors[index, 0] < right and top < anchors[index, 1] < bottom
        }
        assert set(np.flatnonzero(found[face]).tolist()) == expected


def test_small_and_large_faces_get_similarly_many_anchors() -> None:
    """By overlap alone a large face has many times those of a small one."""
    anchors = torch.tensor(make_anchors(640, 640, CONFIG.strides, CONFIG.min_sizes))
    levels = [6400, 1600, 400]
    small, large = torch.tensor([[200.0, 200, 216, 216]]), torch.tensor([[100.0, 100, 500, 500]])

    def count(box: torch.Tensor, chosen: list[int] | None) -> int:
        return int((match(box, NO_POINTS, anchors, CONFIG.variances, torch.zeros(1, dtype=torch.bool), chosen).labels == 1).sum())

    assert count(large, None) > 8 * count(small, None)
    assert count(large, levels) <= 4 * count(small, levels)
    adaptive = match(large, NO_POINTS, anchors, CONFIG.variances, torch.zeros(1, dtype=torch.bool), levels)
    overlaps = box_iou(large, corners(anchors))[0]
    assert (adaptive.labels[(overlaps >= 0.35)] != 0).all(), "what overlaps a face well is not background"


def test_no_face_is_all_background() -> None:
    assert (_match([]).labels == 0).all()


def _outputs(logits: torch.Tensor) -> RawOutputs:
    count = logits.shape[1]
    return RawOutputs(logits, torch.zeros(1, count, 4), torch.zeros(1, count, 10))


def _targets(labels: list[int], box: float = 0.0, landmark: float = float("nan")) -> list[Targets]:
    return [Targets(torch.tensor(labels), torch.full((len(labels), 4), box), torch.full((len(labels), 10), landmark))]


def test_detection_loss_by_hand() -> None:
    """One face and 20 background anchors, all undecided: the face and the 7 hardest count, each log 2."""
    labels = [1] + [0] * 20
    terms = detection_loss(_outputs(torch.zeros(1, 21, 2)), _targets(labels, box=0.5, landmark=3.0))
    assert float(terms["class"]) == pytest.approx(8 * math.log(2))
    assert float(terms["box"]) == pytest.approx(4 * 0.5 * 0.25)  # smooth L1 below 1: half the square
    assert float(terms["landmark"]) == pytest.approx(10 * 2.5)  # above 1: less a half


def test_box_loss_by_overlap_and_distance() -> None:
    """DIoU (Zheng et al. 2020, equation 7) by hand: a box of side 16 on the anchor, one 8 pixels to its right."""
    codes = torch.zeros(128 + 32 + 8, 4)
    codes[0, 0] = 8 / (0.1 * 16)
    labels = torch.zeros(len(codes), dtype=torch.int64)
    labels[0] = 1
    targets = [Targets(labels, codes, torch.full((len(codes), 10), float("nan")))]
    outputs = _outputs(torch.zeros(1, len(codes), 2))
    loss = detection_loss(outputs, targets, ANCHORS, CONFIG.variances)["box"]
    assert float(loss) == pytest.approx(1 - 1 / 3 + 8**2 / (24**2 + 16**2), rel=1e-4)
    assert float(detection_loss(RawOutputs(outputs[0], codes[None], outputs[2]), targets, ANCHORS)["box"]) == pytest.approx(0, abs=1e-5)


def test_scores_learn_whether_the_box_is_good() -> None:
    """Boxes of side 16 that overlap their face by 1, 0.5 and 1/3: certainly, perhaps and not worth finding."""
    boxes = torch.tensor([[0.0, 0, 16, 16], [0, 0, 16, 8], [8, 0, 24, 16]], requires_grad=True)
    face = torch.tensor([[0.0, 0, 16, 16]]).expand(3, 4)
    loss, score = overlap_loss(boxes, face)
    torch.testing.assert_close(score, torch.tensor([1.0, 0.5, 0.0]), rtol=1e-5, atol=1e-5)
    loss.backward()
    assert (boxes.grad[1:] != 0).any(dim=1).all()
    # A face found by a worthless box, an undecided score: the best answer is 0, and the gradient of the score says so.
    logits = torch.zeros(1, len(ANCHORS), 2, requires_grad=True)
    labels = torch.full((len(ANCHORS),), -1)
    labels[0] = 1
    codes = torch.zeros(1, len(ANCHORS), 4)
    codes[0, 0, 0] = 8 / (0.1 * 16)
    targets = [Targets(labels, torch.zeros(len(ANCHORS), 4), torch.full((len(ANCHORS), 10), float("nan")))]
    detection_loss(RawOutputs(logits, codes, torch.zeros(1, len(ANCHORS), 10)), targets, ANCHORS)["class"].backward()
    torch.testing.assert_close(logits.grad[0, 0], torch.tensor([-0.5, 0.5]))
    assert (logits.grad[0, 1:] == 0).all()


def test_decoding_is_the_one_of_the_model() -> None:
    codes = torch.randn(len(ANCHORS), 4, generator=torch.Generator().manual_seed(0))
    expected = decode_boxes(codes.numpy(), ANCHORS.numpy(), CONFIG.variances)
    np.testing.assert_allclose(decode(codes, ANCHORS, CONFIG.variances).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_the_hardest_background_counts() -> None:
    logits = torch.zeros(1, 21, 2)
    logits[0, 9] = torch.tensor([0.0, 5.0])  # sure of a face where there is none
    terms = detection_loss(_outputs(logits), _targets([1] + [0] * 20))
    assert float(terms["class"]) == pytest.approx(7 * math.log(2) + math.log(1 + math.exp(5)), rel=1e-5)


def test_unknown_landmarks_and_ignored_anchors_count_nothing() -> None:
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    outputs = RawOutputs(logits, torch.zeros(1, 3, 4, requires_grad=True), torch.zeros(1, 3, 10, requires_grad=True))
    terms = detection_loss(outputs, _targets([1, -1, 0]))
    assert terms["landmark"].item() == 0
    sum(terms.values()).backward()
    assert torch.isfinite(outputs.landmark_deltas.grad).all()
    assert (logits.grad[0, 1] == 0).all()
    assert (logits.grad[0, 0] != 0).all()


def test_images_without_faces_give_a_finite_loss() -> None:
    terms = detection_loss(_outputs(torch.zeros(1, 21, 2)), _targets([0] * 21))
    assert all(math.isfinite(float(value)) for value in terms.values())
    assert float(terms["class"]) > 0


def test_distillation_loss_by_hand() -> None:
    teacher = RawOutputs(torch.tensor([[[0.0, math.log(3)], [30.0, 0.0]]]), torch.full((1, 2, 4), 2.0), torch.full((1, 2, 10), 0.5))
    student = RawOutputs(torch.tensor([[[0.0, 0.0], [30.0, 0.0]]]), torch.zeros(1, 2, 4), torch.zeros(1, 2, 10))
    terms = distillation_loss(student, teacher, torch.ones(1, 2))
    # The teacher believes 3/4 of a face altogether, which is less than one: the divisor is 1.
    assert float(terms["class"]) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-4)
    assert float(terms["box"]) == pytest.approx(0.75 * 4 * 1.5, rel=1e-4)
    assert float(terms["landmark"]) == pytest.approx(0.75 * 10 * 0.125, rel=1e-4)
    assert float(distillation_loss(student, teacher, torch.tensor([[0.5, 1.0]]))["class"]) == pytest.approx(float(terms["class"]) / 2)


def test_a_perfect_student_has_nothing_to_learn() -> None:
    torch.manual_seed(0)
    outputs = RawOutputs(torch.randn(2, 30, 2), torch.randn(2, 30, 4), torch.randn(2, 30, 10))
    assert sum(float(value) for value in distillation_loss(outputs, outputs, torch.ones(2, 30)).values()) == pytest.approx(0, abs=1e-5)


def test_mirrored_answers_find_the_same_faces() -> None:
    """One anchor answers, not in the middle, of an image that is not square; put back, it decodes to the mirrored face."""
    height, width = 64, 96
    anchors = make_anchors(height, width, CONFIG.strides, CONFIG.min_sizes)
    torch.manual_seed(0)
    for anchor in (3, 170, len(anchors) - 1):  # of three levels
        answers = RawOutputs(torch.zeros(1, len(anchors), 2), torch.zeros(1, len(anchors), 4), torch.zeros(1, len(anchors), 10))
        answers.class_logits[0, anchor, 1] = 9
        answers.box_deltas[0, anchor] = torch.randn(4)
        answers.landmark_deltas[0, anchor] = torch.randn(10)
        back = mirror_answers(answers, height, width, CONFIG.strides)
        found = int(back.class_logits[0, :, 1].argmax())
        before = decode_boxes(answers.box_deltas[0].numpy(), anchors, CONFIG.variances)[anchor]
        after = decode_boxes(back.box_deltas[0].numpy(), anchors, CONFIG.variances)[found]
        np.testing.assert_allclose(after, [width - before[2], before[1], width - before[0], before[3]], rtol=1e-4, atol=1e-3)
        points = decode_landmarks(answers.landmark_deltas[0].numpy(), anchors, CONFIG.variances)[anchor]
        mirrored = decode_landmarks(back.landmark_deltas[0].numpy(), anchors, CONFIG.variances)[found]
        np.testing.assert_allclose(mirrored[[1, 0, 2, 4, 3]], points * [-1, 1] + [width, 0], rtol=1e-4, atol=1e-3)


def test_mean_answers() -> None:
    sure, unsure = (
        RawOutputs(torch.tensor([[[0.0, logit]]]), torch.full((1, 1, 4), value), torch.full((1, 1, 10), value))
        for logit, value in ((50.0, 1.0), (0.0, 3.0))
    )
    mean = mean_answers(sure, unsure)
    assert mean.class_logits.softmax(-1)[0, 0, 1].item() == pytest.approx(0.75)
    assert (mean.box_deltas == 2).all()
    assert (mean.landmark_deltas == 2).all()

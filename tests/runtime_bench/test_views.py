"""Several looks at a photograph, box voting, and the protocols made of them."""

import json

import numpy as np
import pytest

from model.postprocess import Detections
from model.preprocess import load_image
from runtime_bench.detect import torch_detector
from runtime_bench.samples import PORTRAIT
from runtime_bench.views import PROTOCOLS, SHORT_SIDES, View, ViewDetector, look, unmirror, vote
from runtime_bench.widerface import EVALUATION
from tests.conftest import error_line


def vote_by_the_book(candidates: Detections, iou: float) -> list[tuple[list[float], float]]:
    """Boxes and scores, one comparison at a time."""
    left = sorted(zip(candidates.boxes.tolist(), candidates.scores.tolist(), strict=True), key=lambda face: -face[1])
    merged = []
    while left:
        leader = left[0][0]
        group = [(box, score) for box, score in left if overlap(leader, box) > iou]
        left = [face for face in left if face not in group]
        if len(group) > 1:
            total = sum(score for _, score in group)
            merged.append(([sum(box[side] * score for box, score in group) / total for side in range(4)], group[0][1]))
    return merged


def overlap(a: list[float], b: list[float]) -> float:
    width, height = (max(0.0, min(a[side + 2], b[side + 2]) - max(a[side], b[side])) for side in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def crowd(count: int) -> Detections:
    random = np.random.default_rng(1)
    corners = random.integers(0, 8, (count, 2)) * 30 + random.normal(0, 4, (count, 2))
    boxes = np.concatenate([corners, corners + 40 + random.normal(0, 5, (count, 2))], axis=1).astype(np.float32)
    scores = random.permutation(np.linspace(0.02, 0.99, count)).astype(np.float32)
    return Detections(boxes, scores, np.repeat(boxes[:, None, :2], 5, axis=1))


@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_voting_against_a_slow_count(count, monkeypatch):
    monkeypatch.setattr("runtime_bench.views._ROWS", 64)  # several pieces
    found = vote(crowd(count), 0.4, keep=750)
    expected = vote_by_the_book(crowd(count), 0.4)
    assert len(found) == len(expected)
    if expected:
        np.testing.assert_allclose(found.boxes, [box for box, _ in expected], rtol=1e-5)
        np.testing.assert_allclose(found.scores, [score for _, score in expected])
        np.testing.assert_allclose(found.landmarks, np.repeat(found.boxes[:, None, :2], 5, axis=1), rtol=1e-5)
        assert (len(found) > 20) == (count == 300)  # and so does something
    assert len(vote(crowd(count), 0.4, keep=2)) == min(2, len(expected))


def test_scales_are_those_of_the_published_protocol():
    views = PROTOCOLS["multi-scale-flip"](480, 640)
    assert len(views) == 2 * len(SHORT_SIDES)
    assert [round(480 * view.scale) for view in views if not view.mirrored] == [500, 800, 1100, 1400, 1700]
    # Longer than 3:2: the long side is what fits, 1.5 times the short sides.
    long = PROTOCOLS["multi-scale"](1600, 400)
    assert [round(1600 * view.scale) for view in long] == [750, 1200, 1650, 2100, 2550]
    assert PROTOCOLS["original-flip"](100, 70) == [View(1), View(1, True)]
    # The short side is 1600, or the long side 2150.
    ((whole, _),), ((long, _),) = (PROTOCOLS["short-side-1600"](*size) for size in ((1024, 800), (400, 1600)))
    assert (round(800 * whole), round(1600 * long)) == (1600, 2150)


def test_a_mirrored_photograph_has_the_same_faces(public_retinaface):
    image = load_image(PORTRAIT)
    detector = ViewDetector(torch_detector(public_retinaface, None), PROTOCOLS["original-flip"])
    found, mirrored = (
        detector.finish(detector.run(detector.prepare(photograph)), EVALUATION)[0]
        for photograph in (image, np.ascontiguousarray(image[:, ::-1]))
    )
    back = unmirror(mirrored, image.shape[1])
    np.testing.assert_allclose(back.boxes[0], found.boxes[0], atol=0.01)
    np.testing.assert_allclose(back.landmarks[0], found.landmarks[0], atol=0.01)
    assert back.scores[0] == pytest.approx(found.scores[0], abs=1e-5)
    alone, _ = torch_detector(public_retinaface, None).detect(image, EVALUATION)
    assert np.abs(back.boxes[0] - alone.boxes[0]).max() > 0.1  # two looks are not one


def test_one_look_is_suppressed_as_ever_and_not_voted_on(public_retinaface):
    image = load_image(PORTRAIT)
    alone = torch_detector(public_retinaface, None)
    detector = ViewDetector(alone, PROTOCOLS["original"])
    found, _ = detector.finish(detector.run(detector.prepare(image)), EVALUATION)
    expected, _ = alone.detect(image, EVALUATION)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_view_of_twice_the_size_shows_the_same_place(public_retinaface):
    image = load_image(PORTRAIT)
    seen = dict(look(torch_detector(public_retinaface, None), image, [View(1), View(2), View(1, True)], EVALUATION))
    for found in seen.values():
        np.testing.assert_allclose(found.boxes[0], seen[View(1)].boxes[0], atol=8)


def test_the_protocol_is_printed_and_recorded(cli, public_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("runtime_bench.views.SHORT_SIDES", (128, 192))
    monkeypatch.setattr("runtime_bench.views.ENLARGED", (160, 240))
    every = [word for name in PROTOCOLS for word in ("--protocol", name)]
    code, said, _ = cli("runtime_bench", "evaluate", public_weights, *every, "--limit", 1)
    assert code == 0
    lines = said.splitlines()
    assert [name for name in PROTOCOLS if f"scaling {name}, FP32 torch)" in lines[0]] == ["original"]
    for name, line, gain in zip(list(PROTOCOLS)[1:], lines[1::2], lines[2::2], strict=True):
        assert f"scaling {name}, FP32 torch)" in line
        assert gain.startswith("  gain over original: easy ")
    code, said, _ = cli("runtime_bench", "evaluate", public_weights, *every, "--limit", 1, "--json")
    records = [json.loads(line) for line in said.splitlines()]
    assert [record["protocol"] for record in records] == list(PROTOCOLS)
    first, last = records[0], records[-1]
    assert "gain" not in first
    gain, interval = last["gain"]["easy"]
    assert gain == pytest.approx(last["ap"]["easy"] - first["ap"]["easy"])
    assert interval is None  # one photograph says nothing of others
    code, _, error = cli("runtime_bench", "evaluate", public_weights, "--protocol", "multi-scale", "--size", 320)
    assert (code, "not allowed with" in error_line(error)) == (2, True)

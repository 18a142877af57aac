"""Drift: hand-made changes come out as what they are; intervals against a plain bootstrap that scores every draw from the start."""

from dataclasses import replace

import numpy as np
import pytest

from model.postprocess import Detections
from runtime_bench.drift import HEIGHTS, ap_gain, drop_interval, measure_drift
from runtime_bench.evaluate import Evaluation
from runtime_bench.record import ImageTimes, SubsetAP
from runtime_bench.samples import sample_set
from runtime_bench.widerface import RESAMPLES, SUBSETS, GroundTruth, WiderFace, average_precision, drop_intervals

A, B, C = (10, 10, 50, 60), (100, 10, 130, 30), (200, 100, 210, 112)
"""50, 20 and 12 pixels high."""


def found(*scored) -> Detections:
    """(score, left, top, right, bottom) each, best first; landmarks in the box's centre."""
    rows = np.asarray(scored, np.float32).reshape(-1, 5)
    centres = (rows[:, 1:3] + rows[:, 3:5]) / 2
    return Detections(rows[:, 1:], rows[:, 0], np.repeat(centres[:, None], 5, axis=1))


def evaluation(**detections) -> Evaluation:
    return Evaluation(detections, (), ImageTimes(0, 0), SubsetAP(None, None, None))


def dataset(tmp_path, **boxes) -> WiderFace:
    faces = {}
    for name, of_image in boxes.items():
        every = np.ones(len(of_image), bool)
        faces[name] = GroundTruth(np.asarray(of_image, np.float32).reshape(-1, 4), dict.fromkeys(SUBSETS, every))
    return WiderFace(tmp_path, faces, "test")


def test_the_same_detections_have_not_drifted(tmp_path):
    same = evaluation(a=found((0.9, *A), (0.6, *B)), b=found())
    drift = measure_drift(dataset(tmp_path, a=[A, B], b=[]), same, same, 0.5)
    assert (drift.pairs, drift.unpaired) == (2, 0)
    assert (drift.box_iou.mean, drift.score.p95, drift.landmarks.p95) == (1, 0, 0)
    assert [image.change for image in drift.changed] == [0, 0]


def test_detections_without_landmarks_drift_too(tmp_path):
    def boxes_only(*scored) -> Detections:
        faces = found(*scored)
        return Detections(faces.boxes, faces.scores, faces.landmarks[:, :0])

    before, after = evaluation(a=boxes_only((0.9, *A), (0.6, *B))), evaluation(a=boxes_only((0.7, 10, 20, 50, 60)))
    drift = measure_drift(dataset(tmp_path, a=[A, B]), before, after, 0.5)
    assert (drift.pairs, drift.unpaired, drift.landmarks) == (1, 1, None)
    assert drift.box_iou.mean == pytest.approx(0.8)


def test_gains_are_drops_turned_round(tmp_path):
    names = [f"i{number}" for number in range(20)]
    everything = {name: found((0.9, *A), (0.6, *B)) for name in names}
    half = {name: found((0.9, *A)) if number % 2 else faces for number, (name, faces) in enumerate(everything.items())}
    images = dataset(tmp_path, **{name: [A, B] for name in names})
    before, after = (
        replace(evaluation(**seen), ap=SubsetAP(**average_precision(list(images.faces.values()), list(seen.values()))))
        for seen in (half, everything)
    )
    gain, (low, high) = ap_gain(images, before, after)["hard"]
    assert gain == pytest.approx(25)  # a quarter of all faces
    assert 5 < low < gain < high < 45


def test_each_change_comes_out_as_what_it_is(tmp_path):
    before = evaluation(
        moved=found((0.9, *A)), faded=found((0.6, *B)), lost=found((0.8, *C)), found=found((0.4, *A)), low=found((0.3, *A)), false=found()
    )
    after = evaluation(
        moved=found((0.7, 10, 20, 50, 60)), faded=found((0.45, *B)), lost=found(), found=found((0.55, *A)), low=found((0.1, *A)),
        false=found((0.9, 300, 300, 330, 340)),
    )  # fmt: skip
    drift = measure_drift(dataset(tmp_path, moved=[A], faded=[B], lost=[C], found=[A], low=[A], false=[]), before, after, 0.5)
    assert drift.pairs == 3  # moved, faded, found: one side at least is above the threshold
    assert drift.unpaired == 2  # lost, false
    assert drift.box_iou.mean == pytest.approx((0.8 + 1 + 1) / 3)
    assert drift.box_iou.p95 == pytest.approx(0.8 + 0.1 * 0.2)  # the lower tail: the fifth percentile of 0.8, 1, 1
    assert drift.score.mean == pytest.approx((0.2 + 0.15 + 0.15) / 3)
    assert drift.score.median == pytest.approx(0.15)
    # The centre went down by 5 pixels, in a face of 40x50.
    assert drift.landmarks.mean == pytest.approx(100 * 5 / np.sqrt(2000) / 3)
    by_height = {size.height_from: size for size in drift.sizes}
    assert tuple(by_height) == HEIGHTS
    assert [(size.height_to or 0) for size in drift.sizes] == [16, 32, 64, 128, 256, 0]
    assert (by_height[0].faces, by_height[0].found_before, by_height[0].lost, by_height[0].gained) == (1, 1, 1, 0)
    assert (by_height[16].faces, by_height[16].found_before, by_height[16].lost, by_height[16].gained) == (1, 1, 1, 0)
    assert (by_height[32].faces, by_height[32].found_before, by_height[32].lost, by_height[32].gained) == (3, 1, 0, 1)
    assert {image.name for image in drift.changed[:2]} == {"lost", "false"}
    assert [image.name for image in drift.changed[2:]] == ["moved", "faded", "found", "low"]
    assert drift.changed[2].change == pytest.approx(0.2 + 0.2)


def test_one_detection_is_the_counterpart_of_one_only(tmp_path):
    """A face between two of the other side: the one that fits better takes it, the other is alone."""
    before = evaluation(a=found((0.9, 0, 0, 40, 40), (0.8, 12, 0, 52, 40)))
    after = evaluation(a=found((0.9, 4, 0, 44, 40)))
    drift = measure_drift(dataset(tmp_path, a=[]), before, after, 0.5)
    assert (drift.pairs, drift.unpaired) == (1, 1)
    assert drift.box_iou.mean == pytest.approx(36 / 44)


def test_photographs_that_one_side_could_not_read_are_left_out(tmp_path):
    drift = measure_drift(
        dataset(tmp_path, a=[A], b=[B]), evaluation(a=found((0.9, *A)), b=found((0.9, *B))), evaluation(b=found((0.9, *B))), 0.5
    )
    assert (drift.pairs, drift.unpaired, [image.name for image in drift.changed]) == (1, 0, ["b"])


def crowd(seed: int, images: int) -> tuple[list[GroundTruth], list[Detections], list[Detections]]:
    """Faces, what is found of them, and what a worse network finds. Every image holds the extreme scores, so any draw has the same."""
    random = np.random.default_rng(seed)
    truth, before, after = [], [], []
    for _ in range(images):
        corners = random.uniform(0, 300, (random.integers(1, 8), 2))
        boxes = np.concatenate([corners, corners + random.uniform(20, 60, corners.shape)], axis=1)
        truth.append(GroundTruth(boxes.astype(np.float32), {subset: random.random(len(boxes)) < 0.7 for subset in SUBSETS}))
        for side, noise in ((before, 4), (after, 7)):
            guesses = np.concatenate([boxes, [[900, 900, 910, 910], [920, 900, 930, 910]]]) + random.normal(0, noise, (len(boxes) + 2, 4))
            guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
            scores = np.concatenate([[1.0], np.sort(random.uniform(0.1, 0.9, len(boxes)))[::-1], [0.0]])
            side.append(found(*np.column_stack([scores, guesses])))
    return truth, before, after


def test_intervals_are_those_of_a_plain_bootstrap():
    truth, before, after = crowd(0, 14)
    intervals = drop_intervals(truth, before, after)
    draws = np.random.default_rng(0).multinomial(14, np.full(14, 1 / 14), RESAMPLES)
    drops = {subset: [] for subset in SUBSETS}
    for counts in draws:
        chosen = np.repeat(np.arange(14), counts)
        ap = [average_precision([truth[i] for i in chosen], [side[i] for i in chosen]) for side in (before, after)]
        for subset in SUBSETS:
            drops[subset].append(ap[0][subset] - ap[1][subset])
    for subset in SUBSETS:
        assert intervals[subset] == pytest.approx(tuple(np.percentile(drops[subset], (2.5, 97.5))), abs=1e-9)
        assert intervals[subset][1] - intervals[subset][0] > 1


def test_intervals_do_not_depend_on_how_many_images_are_counted_at_once(monkeypatch):
    truth, before, after = crowd(3, 20)
    before[7] = after[0] = found()
    truth[19] = GroundTruth(np.zeros((0, 4), np.float32), dict.fromkeys(SUBSETS, np.zeros(0, bool)))
    at_once = drop_intervals(truth, before, after)
    monkeypatch.setattr("runtime_bench.widerface._BLOCK", 6)
    assert drop_intervals(truth, before, after) == at_once


def test_more_images_give_a_narrower_interval_and_no_change_gives_none():
    few, many = (drop_intervals(*crowd(1, images)) for images in (20, 320))
    for subset in SUBSETS:
        assert (many[subset][1] - many[subset][0]) < (few[subset][1] - few[subset][0]) / 2
    truth, before, _ = crowd(1, 20)
    assert drop_intervals(truth, before, before) == dict.fromkeys(SUBSETS, (0.0, 0.0))


def test_too_few_images_give_no_interval():
    truth, before, after = crowd(2, 9)
    assert drop_intervals(truth, before, after) == dict.fromkeys(SUBSETS)
    names = [f"i{index}" for index in range(9)]
    sides = [evaluation(**dict(zip(names, side, strict=True))) for side in (before, after)]
    photographs = WiderFace(None, dict(zip(names, truth, strict=True)), "test")
    assert drop_interval(photographs, *sides).easy is None


def test_a_real_network_against_itself_at_another_size(public_retinaface):
    """Half the input: the same face, a little elsewhere."""
    from runtime_bench.detect import torch_detector
    from runtime_bench.evaluate import evaluate

    before, after = (evaluate(torch_detector(public_retinaface, size), sample_set(), "test") for size in ((640, 640), (320, 320)))
    drift = measure_drift(sample_set(), before, after, 0.5)
    assert (drift.pairs, drift.unpaired) == (1, 0)
    assert 0.85 < drift.box_iou.mean < 1
    assert 0 < drift.landmarks.mean < 5
    assert [(size.lost, size.gained) for size in drift.sizes] == [(0, 0)] * len(HEIGHTS)
    assert drift.changed[0].name == "astronaut.png"

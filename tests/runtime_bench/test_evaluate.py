"""Running a detector over photographs: in their order, whatever fails, and with the next one prepared meanwhile."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from model.postprocess import Detections
from model.preprocess import NetworkInput
from runtime_bench.detect import Prepared, StageTimes
from runtime_bench.evaluate import evaluate
from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace


class Detector:
    """Finds one face as wide as the photograph. Waits for the next photograph to be prepared before it answers."""

    def __init__(self) -> None:
        self.prepared, self.threads, self.in_time = [], set(), []
        self.next_is_prepared = threading.Condition()

    def prepare(self, image):
        self.threads.add(threading.current_thread())
        with self.next_is_prepared:
            self.prepared.append(image.shape[1])
            self.next_is_prepared.notify_all()
        return Prepared(NetworkInput(image, 1, 1), 7.0)

    def find(self, photograph, thresholds):
        width = photograph.input.tensor.shape[1]
        if width == 30:
            raise UserError("too narrow")
        with self.next_is_prepared:
            self.in_time.append(self.next_is_prepared.wait_for(lambda: width == 60 or max(self.prepared) > width, timeout=20))
        return Detections(np.array([[0, 0, width, 10]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)), StageTimes(
            photograph.ms, 1.0, 2.0
        )


@pytest.fixture
def photographs(tmp_path) -> WiderFace:
    """Widths 10 to 60; the fourth is no image."""
    faces = {}
    for width in (10, 20, 30, 40, 50, 60):
        Image.new("RGB", (width, 20)).save(tmp_path / f"{width}.png")
        faces[f"{width}.png"] = GroundTruth(np.array([[0, 0, width, 10]], np.float32), dict.fromkeys(SUBSETS, np.ones(1, bool)))
    (tmp_path / "40.png").write_text("no")
    return WiderFace(tmp_path, faces, "test")


def test_each_photograph_has_its_own_detections_and_failures_are_left_out(photographs, capsys):
    detector = Detector()
    evaluation = evaluate(detector, photographs, "test")
    assert {name: found.boxes[0, 2] for name, found in evaluation.detections.items()} == {
        "10.png": 10, "20.png": 20, "50.png": 50, "60.png": 60,
    }  # fmt: skip
    assert list(evaluation.detections) == ["10.png", "20.png", "50.png", "60.png"]
    assert evaluation.failed == ("30.png", "40.png")
    assert evaluation.ap.hard == 100
    assert (evaluation.image_ms.preprocess, evaluation.image_ms.postprocess) == (7, 2)
    assert capsys.readouterr().err.count("left out") == 2
    assert detector.in_time == [True] * 4
    assert threading.current_thread() not in detector.threads


def test_an_evaluation_that_is_given_up_leaves_no_thread(photographs):
    detector = Detector()

    def interrupt(*_):
        raise KeyboardInterrupt

    detector.find = interrupt
    with pytest.raises(KeyboardInterrupt):
        evaluate(detector, photographs, "test")
    (thread,) = detector.threads
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_nothing_to_evaluate_is_said(tmp_path):
    faces = GroundTruth(np.zeros((0, 4), np.float32), dict.fromkeys(SUBSETS, np.zeros(0, bool)))
    with pytest.raises(UserError, match=r"test: none of the 1 images under .* could be evaluated; last: no such photograph"):
        evaluate(Detector(), WiderFace(Path(tmp_path), {"a.png": faces}, "test"), "test")

"""Running a detector over photographs: in their order, whatever fails, and with the next ones prepared and run meanwhile."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from model.postprocess import Detections
from model.preprocess import NetworkInput
from runtime_bench.detect import Answered, Prepared, StageTimes
from runtime_bench.evaluate import evaluate
from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace


class Detector:
    """Finds one face as wide as the photograph. Each part waits until the part before it has been done for a later photograph."""

    def __init__(self) -> None:
        self.prepared, self.ran, self.threads, self.in_time = [0], [0], set(), []
        self.progress = threading.Condition()

    def _done(self, widths, width):
        self.threads.add(threading.current_thread())
        with self.progress:
            widths.append(width)
            self.progress.notify_all()

    def _wait(self, widths, width):
        with self.progress:
            self.in_time.append(self.progress.wait_for(lambda: width == 60 or max(widths) > width, timeout=20))

    def prepare(self, image):
        self._done(self.prepared, image.shape[1])
        return Prepared(NetworkInput(image, 1, 1), 7.0)

    def run(self, photograph):
        width = photograph.input.tensor.shape[1]
        self._wait(self.prepared, width)
        self._done(self.ran, width)
        return Answered(photograph, [], 1.0)

    def finish(self, answered, thresholds):
        width = answered.photograph.input.tensor.shape[1]
        if width == 30:
            raise UserError("too narrow")
        self._wait(self.ran, width)
        box = np.array([[0, 0, width, 10]], np.float32)
        return Detections(box, np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)), StageTimes(
            answered.photograph.ms, answered.ms, 2.0
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
    assert detector.in_time == [True] * 9  # the network five times, what follows it four times
    assert len(detector.threads) == 2
    assert threading.current_thread() not in detector.threads


def test_an_evaluation_that_is_given_up_leaves_no_thread(photographs):
    detector = Detector()

    def interrupt(*_):
        raise KeyboardInterrupt

    detector.finish = interrupt
    with pytest.raises(KeyboardInterrupt):
        evaluate(detector, photographs, "test")
    assert len(detector.threads) == 2
    for thread in detector.threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_nothing_to_evaluate_is_said(tmp_path):
    faces = GroundTruth(np.zeros((0, 4), np.float32), dict.fromkeys(SUBSETS, np.zeros(0, bool)))
    with pytest.raises(UserError, match=r"test: none of the 1 images under .* could be evaluated; last: no such photograph"):
        evaluate(Detector(), WiderFace(Path(tmp_path), {"a.png": faces}, "test"), "test")

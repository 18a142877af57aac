import numpy as np
import torch

from model.anchors import make_anchors
from model.config import VARIANTS
from model.detector import build_detector
from model.postprocess import Thresholds, decode_boxes, decode_landmarks, postprocess

CONFIG = VARIANTS["retinaface"]
VARIANCES = (0.1, 0.2)


def test_anchors_by_hand():
    anchors = make_anchors(33, 40, (8, 16, 32), ((16, 32), (64, 128), (256, 512)))
    # Levels of 5x5, 3x3 and 2x2 cells, two anchors each.
    assert anchors.shape == ((25 + 9 + 4) * 2, 4)
    assert anchors[0].tolist() == [4, 4, 16, 16]
    assert anchors[1].tolist() == [4, 4, 32, 32]
    assert anchors[2].tolist() == [12, 4, 16, 16]  # along the row first
    assert anchors[50].tolist() == [8, 8, 64, 64]
    assert anchors[-1].tolist() == [48, 48, 512, 512]


def test_anchors_and_outputs_have_one_order_at_odd_sizes():
    detector = build_detector(CONFIG, seed=0)
    for height, width in ((1, 1), (33, 57), (100, 64)):
        with torch.inference_mode():
            outputs = detector(torch.zeros(1, 3, height, width))
        anchors = make_anchors(height, width, CONFIG.strides, CONFIG.min_sizes)
        assert [tuple(output.shape) for output in outputs] == [(1, len(anchors), values) for values in (2, 4, 10)]


def test_decoding_by_hand():
    anchors = np.asarray([[100, 50, 16, 32]], np.float32)
    deltas = np.asarray([[1.0, -2.0, 0.0, 5 * np.log(2)]], np.float32)  # 0.2 * 5 ln 2: twice as high
    np.testing.assert_allclose(decode_boxes(deltas, anchors, VARIANCES), [[101.6 - 8, 43.6 - 32, 101.6 + 8, 43.6 + 32]], rtol=1e-6)
    points = np.zeros((1, 10), np.float32)
    points[0, 4:6] = 1, 10
    np.testing.assert_allclose(decode_landmarks(points, anchors, VARIANCES)[0, 2], [101.6, 82], rtol=1e-6)
    assert np.isfinite(decode_boxes(np.full((1, 4), 1e4, np.float32), anchors, VARIANCES)).all()


def test_suppression_thresholds_and_the_way_back_to_the_photograph():
    anchors = np.asarray([[50, 50, 40, 40], [52, 50, 40, 40], [150, 50, 40, 40], [250, 50, 40, 40]], np.float32)
    zeros4, zeros10 = np.zeros((4, 4), np.float32), np.zeros((4, 10), np.float32)
    scores = np.asarray([0.7, 0.9, 0.8, 0.1], np.float32)
    found = postprocess(scores, zeros4, zeros10, anchors, VARIANCES, Thresholds(score=0.5), scale=(2.0, 0.5))
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.8)]  # best first; the neighbour suppressed, the weak one dropped
    np.testing.assert_allclose(found.boxes, [[16, 60, 36, 140], [65, 60, 85, 140]])
    np.testing.assert_allclose(found.landmarks[0], [[26, 100]] * 5)
    assert found.boxes.dtype == found.scores.dtype == found.landmarks.dtype == np.float32
    everything = Thresholds(score=0.0, nms_iou=1.0)
    assert len(postprocess(scores, zeros4, zeros10, anchors, VARIANCES, everything)) == 4
    assert len(postprocess(scores, zeros4, zeros10, anchors, VARIANCES, Thresholds(score=0.0, nms_iou=1.0, top_k=3, keep=2))) == 2
    assert len(postprocess(scores, zeros4, zeros10, anchors, VARIANCES, Thresholds(score=0.95))) == 0

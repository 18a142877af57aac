"""Public detectors: their decoding against plain loops, what they see in a photograph, and their rows beside an artifact's."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model.errors import UserError
from model.postprocess import Thresholds
from model.preprocess import load_image
from runtime_bench.detect import check_finite
from runtime_bench.peers import SCRFD, YUNET, letterbox, open_peer
from runtime_bench.record import read_results
from runtime_bench.samples import PORTRAIT, sample_set
from tests.conftest import DATA, error_line

FILES = {"yunet": DATA / "peers" / "yunet_n.onnx", "scrfd": DATA / "peers" / "scrfd_500m.onnx"}


@pytest.fixture(params=FILES)
def peer(request):
    if not FILES[request.param].is_file():
        pytest.skip("the public detectors are not beside the project (../shared/data)")
    return open_peer(f"{request.param}={FILES[request.param]}")


@pytest.mark.parametrize("size", [(640, 640), (320, 480), None])
def test_they_see_the_portrait(peer, size):
    detections, times = peer.detector(size, 1).detect(load_image(PORTRAIT), Thresholds())
    face = sample_set().faces["astronaut.png"].boxes[0]
    assert len(detections) == 1
    assert detections.scores[0] > 0.6
    low, high = np.maximum(detections.boxes[0, :2], face[:2]), np.minimum(detections.boxes[0, 2:], face[2:])
    shared = (high - low).prod()
    areas = [(box[2:] - box[:2]).prod() for box in (detections.boxes[0], face)]
    assert shared / (sum(areas) - shared) > 0.6
    left_eye, right_eye, nose, left_mouth, right_mouth = detections.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert times.network > 0


def test_they_see_nothing_in_a_black_photograph_of_any_shape(peer):
    for shape in ((1, 1, 3), (31, 600, 3)):
        assert len(peer.detector(None, 1).detect(np.zeros(shape, np.uint8), Thresholds())[0]) == 0


def test_yunet_decoding():
    """A network of 64x96: 12x8, 6x4 and 3x2 places."""
    random = np.random.default_rng(0)
    places = [(64 // stride) * (96 // stride) for stride in (8, 16, 32)]
    outputs = [random.random((1, count, channels), np.float32) * 1.2 - 0.1 for channels in (1, 1, 4, 10) for count in places]
    scores, boxes, landmarks = YUNET.decode(outputs, 64, 96)
    at = 0
    for level, stride in enumerate((8, 16, 32)):
        for index in range(places[level]):
            row, column = divmod(index, 96 // stride)
            classes, objects, box, points = (outputs[3 * kind + level][0, index].tolist() for kind in range(4))
            assert scores[at] == pytest.approx(math.sqrt(min(max(classes[0], 0), 1) * min(max(objects[0], 0), 1)), rel=1e-5)
            x, y = (column + box[0]) * stride, (row + box[1]) * stride
            width, height = math.exp(box[2]) * stride, math.exp(box[3]) * stride
            assert boxes[at].tolist() == pytest.approx([x - width / 2, y - height / 2, x + width / 2, y + height / 2], abs=1e-3)
            wanted = [[(column + points[2 * i]) * stride, (row + points[2 * i + 1]) * stride] for i in range(5)]
            assert landmarks[at].tolist() == [pytest.approx(point, abs=1e-3) for point in wanted]
            at += 1
    assert at == len(scores)


def test_scrfd_decoding():
    random = np.random.default_rng(0)
    places = [(64 // stride) * (96 // stride) for stride in (8, 16, 32)]
    outputs = [random.random((2 * count, channels), np.float32) for channels in (1, 4, 10) for count in places]
    scores, boxes, landmarks = SCRFD.decode(outputs, 64, 96)
    at = 0
    for level, stride in enumerate((8, 16, 32)):
        for index in range(2 * places[level]):
            row, column = divmod(index // 2, 96 // stride)
            (score,), (left, top, right, bottom), points = (outputs[3 * kind + level][index].tolist() for kind in range(3))
            assert scores[at] == pytest.approx(score)
            wanted = [(column - left) * stride, (row - top) * stride, (column + right) * stride, (row + bottom) * stride]
            assert boxes[at].tolist() == pytest.approx(wanted, abs=1e-3)
            wanted = [[(column + points[2 * i]) * stride, (row + points[2 * i + 1]) * stride] for i in range(5)]
            assert landmarks[at].tolist() == [pytest.approx(point, abs=1e-3) for point in wanted]
            at += 1
    assert at == len(scores)


def test_letterbox_is_black_beyond_the_photograph():
    padded, scale = letterbox(np.full((50, 100, 3), 200, np.uint8), (64, 64))
    assert scale == (0.64, 0.64)
    assert (padded[:32] == 200).all()
    assert (padded[32:] == 0).all()
    padded, scale = letterbox(np.full((50, 100, 3), 200, np.uint8), None)
    assert (padded.shape, scale) == ((64, 128, 3), (1.0, 1.0))


def test_what_is_no_peer_is_said(artifact, tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])
    copy = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 32, 32])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [copy])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "relu.onnx")
    (tmp_path / "bad.onnx").write_text("no")
    for text, said in (
        ("yunet", "NAME=FILE is needed"),
        ("=x.onnx", "NAME=FILE is needed"),
        (f"a/b={tmp_path / 'relu.onnx'}", "NAME=FILE is needed"),
        ("yunet=missing.onnx", "no such file"),
        (f"a={artifact}", "without --peer"),
        (f"a={tmp_path / 'relu.onnx'}", "neither YuNet nor SCRFD"),
        (f"a={tmp_path / 'bad.onnx'}", "onnxruntime refuses it"),
    ):
        with pytest.raises(UserError, match=said):
            open_peer(text)


def test_rows_beside_an_artifacts(cli, artifact, peer, public_weights, tmp_path):
    arguments = ("runtime_bench", "run", artifact, "--runs", 2, "--json", tmp_path / "r.json")
    code, table, _ = cli(*arguments, "--peer", f"{peer.name}={peer.path}", "--peer", f"public={public_weights}")
    assert code == 0
    own, other, public = read_results(tmp_path / "r.json")
    assert (other.artifact, public.artifact) == (f"{peer.name}-320", "public-320")
    assert all(f"{name} " in table for name in (own.artifact, other.artifact, public.artifact))
    assert own.dataset_digest == other.dataset_digest == public.dataset_digest
    assert own.protocol == other.protocol == public.protocol
    assert other.latency_ms.median > 0
    assert other.ap.hard == public.ap.hard == 100
    assert (other.drop, other.drift, public.latency_ms) == (None, None, None)


def test_peers_are_not_passed_over_on_other_devices(cli, artifact):
    code, _, error = cli("runtime_bench", "run", artifact, "--peer", "a=b.onnx", "--device", "qemu:cortex-a53")
    assert code == 2
    assert "add --device local" in error_line(error)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_runtime_that_gives_no_numbers_has_failed(cli, artifact, tmp_path, monkeypatch, value):
    with pytest.raises(UserError, match="no numbers"):
        check_finite([np.zeros(3), np.array([0, value])], "some")

    original = np.ascontiguousarray
    monkeypatch.setattr("runtime_bench.runtimes.onnxruntime.OnnxRuntime.run", lambda *_: tuple(original([value]) for _ in range(3)))
    code, _, progress = cli("runtime_bench", "run", artifact, "--runs", 1, "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 2
    assert "no numbers" in error_line(progress)
    assert read_results(tmp_path / "r.json")[0].ap is None

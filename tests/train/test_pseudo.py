"""Views of a photograph, what they agree on, and the file that it is kept in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.postprocess import Detections, Thresholds
from model.preprocess import load_image
from runtime_bench.detect import torch_detector
from runtime_bench.samples import PORTRAIT
from runtime_bench.views import unmirror
from train import pseudo
from train.pseudo import PseudoFaces, agree, combine, consult, make_pseudo_labels, read_pseudo_labels
from train.widerface_data import Faces, StreamedSample

POINTS = [[30.0, 35], [50, 36], [40, 45], [33, 55], [48, 56]]


def _found(*faces: tuple[list[float], float]) -> Detections:
    """Boxes and scores; every landmark is the box's left upper corner."""
    boxes = np.asarray([box for box, _ in faces], np.float32).reshape(-1, 4)
    landmarks = np.repeat(boxes[:, None, :2], 5, axis=1)
    return Detections(boxes, np.asarray([score for _, score in faces], np.float32), landmarks)


def test_views_vote_on_boxes_and_agree_on_scores() -> None:
    """A face of 50 pixels, seen at three scales as 25, 50 and 100: means by score for the place, the plain mean for the score."""
    merged = agree([(0.5, _found(([10, 10, 60, 60], 0.2))), (1.0, _found(([14, 10, 64, 60], 0.6))), (2.0, _found())])
    assert len(merged) == 1
    np.testing.assert_allclose(merged.boxes[0], [13, 10, 63, 60], atol=1e-4)
    np.testing.assert_allclose(merged.landmarks[0], np.tile([13, 10], (5, 1)), atol=1e-4)
    assert merged.scores[0] == pytest.approx(0.8 / 3)  # the third view does not see it and has its say


def test_views_are_asked_about_faces_of_their_size_only() -> None:
    """10 pixels are for the view at twice the size, 300 not; neither hears the other's opinion."""
    tiny, large = [100.0, 100, 110, 110], [0.0, 0, 300, 300]
    merged = agree([(1.0, _found((large, 0.9), (tiny, 0.1))), (2.0, _found((tiny, 0.8), ([5.0, 5, 295, 295], 0.3)))])
    found = {int(box[2] - box[0]): score for box, score in zip(merged.boxes, merged.scores, strict=True)}
    assert found == {300: pytest.approx(0.9), 10: pytest.approx(0.8)}


def test_nothing_seen() -> None:
    merged = agree([(1.0, _found()), (2.0, _found())])
    assert (merged.boxes.shape, merged.scores.shape, merged.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_unmirrored() -> None:
    """Mirrored by hand: what is 10 from the right edge was 10 from the left, and eyes change places."""
    landmarks = np.asarray([[[70, 40], [80, 41], [75, 45], [71, 50], [79, 51]]], np.float32)
    back = unmirror(Detections(np.asarray([[60, 30, 90, 60]], np.float32), np.ones(1, np.float32), landmarks), 100)
    np.testing.assert_array_equal(back.boxes, [[10, 30, 40, 60]])
    np.testing.assert_array_equal(back.landmarks[0], [[20, 41], [30, 40], [25, 45], [21, 51], [29, 50]])


def test_a_portrait_by_all_views(public_retinaface) -> None:
    """One face, where one view finds it, mirrored or not, and a higher consensus than anything else has."""
    image = load_image(PORTRAIT)
    found = consult(torch_detector(public_retinaface, None), image)
    left, top, right, bottom = found.boxes[0]
    assert 160 < left < 200 < 240 < right < 290
    assert 40 < top < 80 < 150 < bottom < 200
    assert found.scores[0] > 0.95
    assert not (found.scores[1:] > 0.5).any()
    single, _ = torch_detector(public_retinaface, None).detect(image, Thresholds())
    np.testing.assert_allclose(found.boxes[0], single.boxes[0], atol=6)
    np.testing.assert_allclose(found.landmarks[0], single.landmarks[0], atol=4)


LABELLED = Faces(
    np.asarray([[20, 20, 60, 60], [200, 200, 220, 225]], np.float32), np.full((2, 5, 2), np.nan, np.float32), np.zeros(2, bool)
)


def _pseudo(*faces: tuple[list[float], float], labelled: bool = True) -> PseudoFaces:
    boxes, scores = [tuple(box) for box, _ in faces], [score for _, score in faces]
    return PseudoFaces("a", labelled, boxes, [[tuple(point) for point in POINTS]] * len(faces), scores)


def test_labels_keep_their_boxes_and_get_landmarks() -> None:
    faces = combine(LABELLED, _pseudo(([22, 18, 62, 60], 0.9), ([300, 300, 340, 340], 0.9), ([400, 300, 440, 340], 0.3)))
    np.testing.assert_array_equal(faces.boxes, [[20, 20, 60, 60], [200, 200, 220, 225], [300, 300, 340, 340]])
    np.testing.assert_array_equal(faces.landmarks[0], POINTS)
    assert np.isnan(faces.landmarks[1:]).all()
    assert faces.doubtful.tolist() == [False, False, True], "what the labels may have missed is not taught either way"


def test_landmarks_that_are_known_stay() -> None:
    known = Faces(LABELLED.boxes, np.zeros((2, 5, 2), np.float32), LABELLED.doubtful)
    assert (combine(known, _pseudo(([22, 18, 62, 60], 0.9))).landmarks == 0).all()


def test_photographs_without_labels_get_faces() -> None:
    faces = combine(None, _pseudo(([22, 18, 62, 60], 0.9), ([300, 300, 340, 340], 0.4), ([9, 9, 20, 20], 0.1), labelled=False))
    np.testing.assert_array_equal(faces.boxes, [[22, 18, 62, 60], [300, 300, 340, 340]])
    assert faces.doubtful.tolist() == [False, True]
    assert len(combine(None, _pseudo(labelled=False))) == 0
    assert len(combine(LABELLED, _pseudo())) == 2


@pytest.fixture
def photographs(tmp_path: Path) -> list[StreamedSample]:
    for name in ("a", "b", "c"):
        Image.fromarray(load_image(PORTRAIT)[::4, ::4]).save(tmp_path / f"{name}.png")
    return [StreamedSample(tmp_path / f"{name}.png", name, None, 1) for name in ("a", "b", "c")]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(build_detector(VARIANTS["retinaface"], seed=0), path, "test")
    return path


def test_broken_off_and_gone_on(tmp_path: Path, teacher: Path, photographs: list[StreamedSample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a line: nothing is looked at twice, and the file is the same as in one go."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    make_pseudo_labels(teacher, photographs, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    seen = []
    monkeypatch.setattr(pseudo, "load_image", lambda path: (seen.append(path.stem), load_image(path))[1])
    make_pseudo_labels(teacher, photographs, out)
    assert seen == ["b", "c"]
    assert out.read_bytes() == whole.read_bytes()
    assert not partial.exists()
    with pytest.raises(UserError, match="exists"):
        make_pseudo_labels(teacher, photographs, out)


def test_read_back(tmp_path: Path, teacher: Path, photographs: list[StreamedSample], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    photographs[1].path.write_bytes(b"no png")
    make_pseudo_labels(teacher, photographs, out)
    assert "left out" in capsys.readouterr().err
    found = consult(torch_detector(load_checkpoint(teacher), None), load_image(photographs[0].path))
    improve = read_pseudo_labels(out)
    faces = improve("a", None)
    kept = found.scores >= pseudo.UNCERTAIN
    np.testing.assert_allclose(faces.boxes, found.boxes[kept], atol=0.01)
    np.testing.assert_allclose(faces.landmarks, found.landmarks[kept], atol=0.01)
    assert improve("b", None) is None  # nobody could look at it
    assert improve("a", LABELLED) is LABELLED  # another photograph of that name


def test_files_that_do_not_fit(tmp_path: Path, teacher: Path, photographs: list[StreamedSample]) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="no such file"):
        read_pseudo_labels(out)
    for content in (b"", b"no json\n", json.dumps({"name": "a"}).encode()):
        out.write_bytes(content)
        with pytest.raises(UserError, match="holds no pseudo-labels"):
            read_pseudo_labels(out)
    partial = tmp_path / "new.jsonl.partial"
    partial.write_text('{"teacher":"another"}\n')
    with pytest.raises(UserError, match="another teacher"):
        make_pseudo_labels(teacher, photographs, tmp_path / "new.jsonl")
    partial.write_text("{}\n")
    with pytest.raises(UserError, match="damaged"):
        make_pseudo_labels(teacher, photographs, tmp_path / "new.jsonl")


def test_a_teacher_without_landmarks_is_refused(tmp_path: Path) -> None:
    teacher = tmp_path / "boxes.safetensors"
    save_checkpoint(build_detector(VARIANTS["retinaface_mobilenetv2"], seed=0), teacher, "untrained")
    with pytest.raises(UserError, match="retinaface_mobilenetv2, which gives no landmarks"):
        make_pseudo_labels(teacher, [], tmp_path / "pseudo.jsonl")
    assert not list(tmp_path.glob("pseudo*"))

"""The evaluator: hand-made cases, a plain loop written from the official tools' description, and its file reading."""

import numpy as np
import pytest
import scipy.io

from model.errors import UserError
from model.postprocess import Detections
from runtime_bench.widerface import SUBSETS, GroundTruth, average_precision, count_levels, load_validation, read_ground_truth


def faces(*boxes, **subsets) -> GroundTruth:
    """Boxes as left, top, right, bottom; all faces in every subset that is not given."""
    every = [True] * len(boxes)
    return GroundTruth(np.asarray(boxes, np.float32).reshape(-1, 4), {name: np.asarray(subsets.get(name, every), bool) for name in SUBSETS})


def found(*scored) -> Detections:
    """(score, left, top, right, bottom) each, best first."""
    rows = np.asarray(scored, np.float32).reshape(-1, 5)
    return Detections(rows[:, 1:], rows[:, 0], np.zeros((len(rows), 5, 2), np.float32))


A, B, FAR = (10, 10, 50, 60), (100, 10, 140, 60), (300, 300, 340, 350)
NOTHING = found()


def test_perfect_detections():
    ap = average_precision([faces(A, B), faces(A)], [found((0.9, *A), (0.8, *B)), found((0.7, *A))])
    assert ap == dict.fromkeys(SUBSETS, 100.0)


def test_a_false_detection_before_the_true_one_halves_precision():
    ap = average_precision([faces(A)], [found((0.9, *FAR), (0.8, *A), (0.1, *B))])
    assert ap["easy"] == pytest.approx(50)
    # Behind it, it costs nothing: precision is already read when the last face is found.
    assert average_precision([faces(A)], [found((0.9, *A), (0.8, *FAR))])["easy"] == pytest.approx(100)


def test_images_without_detections_cost_recall():
    ap = average_precision([faces(A), faces(B)], [found((0.9, *A)), NOTHING])
    assert ap["easy"] == pytest.approx(50)
    assert average_precision([faces(A)], [NOTHING])["easy"] == 0


def test_a_second_detection_of_a_face_is_false_and_low_overlap_is_no_match():
    twice = found((0.9, *A), (0.8, 11, 10, 51, 60), (0.7, *B))
    assert average_precision([faces(A, B)], [twice])["easy"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
    assert average_precision([faces(A)], [found((0.9, 40, 10, 80, 60))])["easy"] == 0


def test_faces_outside_the_subset_are_neither_right_nor_wrong():
    truth = faces(A, B, easy=[False, True])
    ap = average_precision([truth], [found((0.9, *A), (0.8, *B))])
    assert ap == {"easy": pytest.approx(100), "medium": pytest.approx(100), "hard": pytest.approx(100)}
    # An image without a face of the subset still counts what hits no face at all.
    ap = average_precision([faces(A), faces(B, easy=[False])], [found((0.8, *A)), found((0.9, *FAR), (0.8, *B))])
    assert ap["easy"] == pytest.approx(50)


def test_an_image_without_any_face_is_passed_over_as_by_the_official_tools():
    assert average_precision([faces(A), faces()], [found((0.5, *A)), found((0.9, *FAR))])["easy"] == pytest.approx(100)


def test_an_empty_subset_has_no_average_precision():
    ap = average_precision([faces(A, easy=[False])], [found((0.9, *A))])
    assert np.isnan(ap["easy"])
    assert ap["hard"] == pytest.approx(100)


def test_what_is_kept_for_average_precision_is_a_few_bytes_for_each_image_and_detection():
    counts = count_levels([faces(A, B)] * 50 + [faces()], [found((0.9, *A), (0.8, *B), (0.7, *FAR))] * 51)
    assert sum(array.nbytes for array in vars(counts).values()) == 51 * 8 + 150 * (2 + 6)


def plain_loops(truth, detections, subset) -> float:
    """The protocol once more, step by step as the official evaluation describes it, without a vector in sight."""
    scores = [score for found_ in detections for score in found_.scores.tolist()]
    low, high = min(scores), max(scores)
    totals = [[0, 0] for _ in range(1000)]
    count = 0
    for image, found_ in zip(truth, detections, strict=True):
        count += int(image.subsets[subset].sum())
        if not len(image.boxes) or not len(found_.scores):
            continue
        taken, claims, running = set(), [], []
        for box in found_.boxes.tolist():
            best, best_face = -1.0, None
            for index, face in enumerate(image.boxes.tolist()):
                width = min(box[2], face[2]) - max(box[0], face[0]) + 1
                height = min(box[3], face[3]) - max(box[1], face[1]) + 1
                inter = max(width, 0) * max(height, 0)
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, face)]
                iou = inter / (sum(areas) - inter)
                if iou > best:
                    best, best_face = iou, index
            proposal = 1
            if best >= 0.5:
                if not image.subsets[subset][best_face]:
                    proposal = 0
                else:
                    taken.add(best_face)
            claims.append(proposal)
            running.append(len(taken))
        for level in range(1000):
            threshold = 1 - (level + 1) / 1000
            reaching = [i for i, score in enumerate(found_.scores.tolist()) if (score - low) / (high - low) >= threshold]
            if reaching:
                totals[level][0] += sum(claims[: reaching[-1] + 1])
                totals[level][1] += running[reaching[-1]]
    points = [(right / count, right / all_ if all_ else 0.0) for all_, right in totals]
    recalls = [0.0] + [recall for recall, _ in points] + [1.0]
    precisions = [0.0] + [precision for _, precision in points] + [0.0]
    for index in range(len(precisions) - 1, 0, -1):
        precisions[index - 1] = max(precisions[index - 1], precisions[index])
    return 100 * sum((recalls[i + 1] - recalls[i]) * precisions[i + 1] for i in range(len(recalls) - 1))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_plain_loops_on_crowded_random_images(seed):
    random = np.random.default_rng(seed)
    truth, detections = [], []
    for _ in range(12):
        corners = random.uniform(0, 200, (random.integers(0, 9), 2))
        boxes = np.concatenate([corners, corners + random.uniform(10, 60, corners.shape)], axis=1)
        truth.append(faces(*boxes, **{subset: random.random(len(boxes)) < 0.6 for subset in SUBSETS}))
        guesses = np.concatenate([boxes + random.normal(0, 5, boxes.shape) for _ in range(3)] + [random.uniform(0, 250, (4, 4))])
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = np.sort(random.uniform(0.02, 1, len(guesses)))[::-1]
        detections.append(found(*np.column_stack([scores, random.permutation(guesses)])))
    ap = average_precision(truth, detections)
    for subset in SUBSETS:
        assert ap[subset] == pytest.approx(plain_loops(truth, detections, subset), abs=1e-9)
        assert 5 < ap[subset] < 95


def cells(*items) -> np.ndarray:
    """A MATLAB column of cells."""
    column = np.empty((len(items), 1), object)
    column[:, 0] = items
    return column


@pytest.fixture
def tiny_root(tmp_path):
    """Two events with two and one images; the official layout."""
    (tmp_path / "val" / "ground_truth").mkdir(parents=True)
    boxes = cells(
        cells(np.asarray([[10, 20, 30, 40], [1, 2, 3, 4]], float), np.asarray([[5, 5, 10, 10]], float)),
        cells(np.asarray([[0, 0, 9, 9]], float)),
    )
    for subset, keep in (("easy", [1]), ("medium", [2]), ("hard", [1, 2])):
        scipy.io.savemat(
            tmp_path / "val" / "ground_truth" / f"wider_{subset}_val.mat",
            {
                "event_list": cells("0--Parade", "1--Handshaking"),
                "file_list": cells(cells("a", "b"), cells("c")),
                "face_bbx_list": boxes,
                "gt_list": cells(cells(np.asarray([keep]).T, np.zeros((0, 1))), cells(np.asarray([[1]]))),
            },
        )
    for name in ("0--Parade/a.jpg", "0--Parade/b.jpg", "1--Handshaking/c.jpg"):
        path = tmp_path / "val" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_reads_the_official_layout(tiny_root):
    dataset = load_validation(tiny_root)
    assert list(dataset.faces) == ["0--Parade/a.jpg", "0--Parade/b.jpg", "1--Handshaking/c.jpg"]
    first = dataset.faces["0--Parade/a.jpg"]
    assert first.boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]
    assert {name: kept.tolist() for name, kept in first.subsets.items()} == {
        "easy": [True, False],
        "medium": [False, True],
        "hard": [True, True],
    }
    assert not dataset.faces["0--Parade/b.jpg"].subsets["easy"].any()


def test_list_and_limit(tiny_root):
    names = tiny_root / "names.txt"
    names.write_text("1--Handshaking/c.jpg\n\n0--Parade/a.jpg\n")
    assert list(load_validation(tiny_root, names).faces) == ["1--Handshaking/c.jpg", "0--Parade/a.jpg"]
    first = load_validation(tiny_root, names, limit=1)
    assert list(first.faces) == ["1--Handshaking/c.jpg"]
    assert first.title.endswith(", first 1)")
    assert "first" not in load_validation(tiny_root, names, limit=100).title, "a limit that leaves nothing out is none"


def test_what_is_wrong_with_a_root_is_said(tiny_root):
    names = tiny_root / "names.txt"
    for text, said in (
        ("0--Parade/zzz.jpg", "no image of the validation"),
        ("", "leave none"),
        ("../../etc/passwd", "no image of the validation"),
    ):
        names.write_text(text)
        with pytest.raises(UserError, match=said):
            load_validation(tiny_root, names)
    with pytest.raises(UserError, match="cannot read the image list"):
        load_validation(tiny_root, tiny_root / "absent.txt")
    (tiny_root / "val" / "images" / "0--Parade" / "b.jpg").unlink()
    with pytest.raises(UserError, match="1 of 3 images are missing"):
        load_validation(tiny_root)
    mat = tiny_root / "val" / "ground_truth" / "wider_hard_val.mat"
    mat.write_bytes(mat.read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged"):
        load_validation(tiny_root)
    mat.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_validation(tiny_root)


def test_the_official_ground_truth(wider_root):
    truth = read_ground_truth(wider_root / "val" / "ground_truth")
    assert len(truth) == 3226
    # Counts that the official tools divide by.
    assert {subset: sum(int(image.subsets[subset].sum()) for image in truth.values()) for subset in SUBSETS} == {
        "easy": 7211,
        "medium": 13319,
        "hard": 31958,
    }

"""Label layouts, images that cannot be read, and what augmentation does to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import VARIANTS
from model.errors import UserError
from model.preprocess import load_image
from runtime_bench.samples import PORTRAIT
from train.augment import Augment, Crop, border, mosaic, normalise, render
from train.loader import Batches, as_planes
from train.recipe import Batch, Data, Losses, Recipe
from train.widerface_data import NO_FACES, Faces, Sample, hold_out, load_labelled, load_unlabelled, read_labels

LANDMARKS = "30 40 0.0 50 40 0.0 40 50 0.0 32 60 0.0 48 60 0.0"
UNKNOWN = " ".join(["-1.0"] * 15)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "train" / "images" / "0--Parade"
    folder.mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (100, 80), "white").save(folder / name)
    return tmp_path


def _label(root: Path, text: str, name: str = "train/label.txt") -> None:
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_retinaface_layout(root: Path) -> None:
    _label(root, f"# 0--Parade/a.jpg\n20 30 40 45 {LANDMARKS} 0.8\n1 2 3 4 {UNKNOWN} 0.0\n# 0--Parade/b.jpg\n")
    images, labels = read_labels(root)
    assert images == root / "train" / "images"
    faces = labels["0--Parade/a.jpg"]
    np.testing.assert_array_equal(faces.boxes, [[20, 30, 60, 75], [1, 2, 4, 6]])
    np.testing.assert_array_equal(faces.landmarks[0], [[30, 40], [50, 40], [40, 50], [32, 60], [48, 60]])
    assert np.isnan(faces.landmarks[1]).all()
    assert len(labels["0--Parade/b.jpg"]) == 0


@pytest.mark.parametrize("place", ["train", "wider_face_split", "."])
def test_official_layout(root: Path, place: str) -> None:
    text = (
        "0--Parade/a.jpg\n3\n10 20 30 40 0 0 0 0 0 0\n1 1 9 9 0 0 0 1 0 0\n50 50 5 5 2 0 0 0 1 0\n0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    )
    _label(root, text, f"{place}/wider_face_train_bbx_gt.txt")
    _, labels = read_labels(root)
    np.testing.assert_array_equal(labels["0--Parade/a.jpg"].boxes, [[10, 20, 40, 60], [50, 50, 55, 55]])  # the second is marked invalid
    assert len(labels["0--Parade/b.jpg"]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3 4\n", "line 1: a face before"),
        ("# a.jpg\n1 2 3\n", "line 2: 3 numbers"),
        ("# a.jpg\n1 2 x 4\n", "line 2: not a row of numbers"),
        ("# a.jpg\n1 2 nan 4\n", "line 2: a number that is not finite"),
        ("", "names no image"),
    ],
)
def test_damaged_retinaface_labels(root: Path, text: str, words: str) -> None:
    _label(root, text)
    with pytest.raises(UserError, match=words):
        read_labels(root)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a.jpg\n2\n1 2 3 4\n", "ends within"), ("a.jpg\nb.jpg\n", "line 2: the number of faces"), ("a.jpg\n1\n1 2 3\n", "fewer than 4")],
)
def test_damaged_official_labels(root: Path, text: str, words: str) -> None:
    _label(root, text, "wider_face_split/wider_face_train_bbx_gt.txt")
    with pytest.raises(UserError, match=words):
        read_labels(root)


def test_no_labels_and_no_images(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training labels"):
        read_labels(root)
    with pytest.raises(UserError, match="no training images"):
        read_labels(tmp_path / "elsewhere")


def test_loading_clips_scales_and_skips(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A box beyond the border is cut, one without area dropped, a corrupt and a missing image skipped and counted."""
    (root / "train/images/0--Parade/c.jpg").write_bytes(b"no jpeg")
    _label(
        root,
        f"# 0--Parade/a.jpg\n80 60 100 100 {UNKNOWN} 0\n10 10 0 20 {UNKNOWN} 0\n200 200 10 10 {UNKNOWN} 0\n20 30 40 45 {LANDMARKS} 0\n"
        "# 0--Parade/b.jpg\n# 0--Parade/c.jpg\n# 0--Parade/missing.jpg\n",
    )
    samples = load_labelled(root, longest_side=50)
    assert [sample.name for sample in samples] == ["0--Parade/a.jpg", "0--Parade/b.jpg"]
    assert samples[0].pixels.shape == (40, 50, 3)
    np.testing.assert_allclose(samples[0].faces.boxes, [[40, 30, 50, 40], [10, 15, 30, 37.5]])
    np.testing.assert_allclose(samples[0].faces.landmarks[1, 0], [15, 20])
    assert "2 of 4 photographs" in capsys.readouterr().err


def test_streaming_draws_another_where_one_cannot_be_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/images/0--Parade/c.jpg").write_bytes(b"no jpeg")
    _label(root, "# 0--Parade/a.jpg\n20 30 40 45\n# 0--Parade/c.jpg\n1 1 30 30\n# 0--Parade/missing.jpg\n")
    samples = load_labelled(root, longest_side=50, in_memory=False)
    assert "1 of 3 photographs" in capsys.readouterr().err  # the missing one; what is damaged shows when it is read
    recipe = Recipe("retinaface", Data((Batch(64, 8),), in_memory=False), steps=1)
    batches = Batches(recipe, samples, [])
    batch = batches[0]
    assert batch.pixels.shape == (8, 3, 64, 64)
    assert batches.unreadable > 0
    assert "cannot be decoded" in (text := capsys.readouterr().err) or "not an image" in text
    np.testing.assert_allclose(samples[0].read().faces.boxes, [[10, 15, 30, 37.5]])
    with pytest.raises(UserError, match="in a row"):
        Batches(recipe, samples[1:], [])[0]


def test_faces_outside_the_range_of_sizes_are_neither_faces_nor_background(root: Path) -> None:
    _label(root, "# 0--Parade/a.jpg\n20 10 14 14\n60 20 24 24\n0 30 40 48\n")
    samples = load_labelled(root, longest_side=100)
    data = Data((Batch(96, 1),), zoom=(1.0, 1.0), whole=1.0)
    counts = []
    for losses in (Losses(smallest_face=0.0), Losses(smallest_face=0.0, largest_face=25.0), Losses(smallest_face=13.5, largest_face=25.0)):
        (targets,) = Batches(Recipe("retinaface", data, steps=1, losses=losses), samples, [])[0].targets
        counts.append([int((targets.labels == label).sum()) for label in (1, -1)])
    (all_, none), (without_large, large), (middle, both) = counts
    assert all_ > without_large >= middle > 0
    assert 0 == none < large < both


def test_held_out_photographs_are_not_trained_on(root: Path) -> None:
    """Every second one; faces by their height alone."""
    for name in ("c.jpg", "d.jpg"):
        Image.new("RGB", (100, 80), "white").save(root / "train/images/0--Parade" / name)
    rows = "0 0 9 50\n0 0 50 49\n0 0 9 30\n0 0 9 29\n0 0 9 9\n"
    _label(root, f"# 0--Parade/d.jpg\n# 0--Parade/a.jpg\n{rows}# 0--Parade/b.jpg\n# 0--Parade/c.jpg\n")
    judged = hold_out(root, 2)
    trained = load_labelled(root, 50, held_out=2)
    assert list(judged.faces) == ["0--Parade/a.jpg", "0--Parade/c.jpg"]
    assert [sample.name for sample in trained] == ["0--Parade/b.jpg", "0--Parade/d.jpg"]
    assert list(hold_out(root, 2, others=True).faces) == [sample.name for sample in trained]
    assert list(hold_out(root, 4, others=True, limit=2).faces) == ["0--Parade/b.jpg", "0--Parade/d.jpg"], "spread over the set"
    assert len(load_labelled(root, 50)) == 4
    faces = judged.faces["0--Parade/a.jpg"]
    np.testing.assert_array_equal(faces.boxes[0], [0, 0, 9, 50])  # in pixels of the file, not of the scaled photograph
    assert {subset: inside.tolist() for subset, inside in faces.subsets.items()} == {
        "easy": [True, False, False, False, False],
        "medium": [True, True, True, False, False],
        "hard": [True, True, True, True, False],
    }
    assert (judged.images / "0--Parade/a.jpg").is_file()


def test_labels_are_improved_before_they_are_scaled(root: Path) -> None:
    _label(root, "# 0--Parade/a.jpg\n20 30 40 45\n# 0--Parade/b.jpg\n")
    one = Faces(np.asarray([[10, 20, 40, 60]], np.float32), np.zeros((1, 5, 2), np.float32), np.ones(1, bool))
    samples = load_labelled(root, 50, improve=lambda name, faces: NO_FACES if name.endswith("a.jpg") else one)
    assert len(samples[0].faces) == 0
    np.testing.assert_allclose(samples[1].faces.boxes, [[5, 10, 20, 30]])
    assert samples[1].faces.doubtful.all()
    assert load_unlabelled(root, 50, improve=lambda name, faces: NO_FACES)[0].faces is not None


def test_nothing_readable(root: Path, tmp_path: Path) -> None:
    _label(root, "# 0--Parade/none.jpg\n")
    with pytest.raises(UserError, match="not one of the 1"):
        load_labelled(root, 50)
    with pytest.raises(UserError, match="no such folder"):
        load_unlabelled(tmp_path / "nowhere", 50)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no photograph"):
        load_unlabelled(tmp_path / "empty", 50)


# Augmentation: a photograph in which every pixel says where it is, red its column, green its row.
FACES = Faces(
    np.asarray([[100, 80, 180, 190]], np.float32),
    np.asarray([[[120, 110], [160, 115], [140, 140], [125, 170], [155, 172]]], np.float32),
    np.zeros(1, bool),
)


def _map() -> Sample:
    rows, columns = np.mgrid[:200, :220].astype(np.uint8)
    return Sample("map", np.stack([columns, rows, np.full_like(rows, 128)], axis=-1), FACES)


def _render(crop: Crop, *samples: Sample) -> torch.Tensor:
    return render(crop.frames, lambda number: as_planes(samples[number]), border(VARIANTS["retinaface"]))


@pytest.mark.parametrize("seed", range(20))
def test_boxes_and_landmarks_follow_the_pixels(seed: int) -> None:
    """Read off the crop where its pixels come from: those under a landmark must come from the landmark's place."""
    torch.manual_seed(seed)
    crop = Augment(128, (0.6, 2.0), whole=0.3, colour=0.0)(_map())
    pixels = _render(crop, _map())
    assert pixels.shape == (3, 128, 128)
    assert len(crop.boxes) == 1  # every crop holds the centre of a face, and there is one only
    box, landmarks, mirrored = crop.boxes[0], crop.landmarks[0], _mirrored(pixels)
    assert landmarks[0, 0] < landmarks[1, 0], "the left eye is on the left of the image, mirrored or not"
    points = torch.cat([landmarks, box.view(2, 2)])
    left, top, right, bottom = FACES.boxes[0]
    corners = [[right, top], [left, bottom]] if mirrored else [[left, top], [right, bottom]]
    expected = np.concatenate([FACES.landmarks[0, [1, 0, 2, 4, 3] if mirrored else slice(None)], corners])
    checked = 0
    for point, (x, y) in zip(points, expected, strict=True):
        if _inside(point):
            column, row = (int(value) for value in point)
            assert abs(float(pixels[0, row, column]) - x) < 3
            assert abs(float(pixels[1, row, column]) - y) < 3
            checked += 1
    assert checked


INKS = np.asarray([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_face_is_found_where_the_labels_say(seed: int) -> None:
    """A magenta box and five dots of other colours on a grey photograph; after augmentation each is looked for by its colour."""
    image = np.repeat(load_image(PORTRAIT)[:, :400].mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    left, top, right, bottom = 120, 60, 260, 230
    image[top:bottom, left:right] = (255, 0, 255)
    points = np.asarray([[160, 110], [220, 115], [190, 150], [165, 190], [215, 192]], np.float32)
    for (x, y), ink in zip(points.astype(int), INKS, strict=True):
        image[y - 7 : y + 7, x - 7 : x + 7] = ink
    faces = Faces(np.asarray([[left, top, right, bottom]], np.float32), points[None], np.zeros(1, bool))
    torch.manual_seed(seed)
    sample = Sample("drawn", image, faces)
    crop = Augment(256, (0.7, 1.0), whole=0.5, colour=0.0)(sample)
    pixels = _render(crop, sample).permute(1, 2, 0).numpy().astype(int)

    def find(ink: np.ndarray) -> np.ndarray:
        """Columns and rows, ``(2, P)``, of the pixels of this colour."""
        return np.stack(np.nonzero((np.abs(pixels - ink) < 60).all(axis=2))[::-1])

    sides = [np.concatenate([find(INKS[eye])[0], find(INKS[mouth])[0]]) for eye, mouth in ((0, 3), (1, 4))]
    mirrored = sides[0].mean() > sides[1].mean()
    box = crop.boxes[0].numpy()
    drawn = np.concatenate([find(ink) for ink in (*INKS, np.asarray([255, 0, 255]))], axis=1)
    inner = np.clip(box, 0, 256)
    np.testing.assert_allclose([*drawn.min(axis=1), *(drawn.max(axis=1) + 1)], inner, atol=2)
    for index, point in enumerate(crop.landmarks[0].numpy()):
        place = find(INKS[(1, 0, 2, 4, 3)[index] if mirrored else index])
        if place.size and (place.min() > 0) and (place.max() < 255):  # whole
            np.testing.assert_allclose(place.mean(axis=1) + 0.5, point, atol=1.5)


def _inside(point: torch.Tensor) -> bool:
    return bool(((point > 4) & (point < 124)).all())


def _mirrored(pixels: torch.Tensor) -> bool:
    inside = pixels[2] == 128  # the border has another blue
    columns = pixels[0].float()
    steps = (columns[:, 1:] - columns[:, :-1])[inside[:, 1:] & inside[:, :-1]]
    return float(steps.sum()) < 0


@pytest.mark.parametrize("row", [1, 2, 4])
def test_a_mosaic_holds_whole_photographs_with_their_faces(row: int) -> None:
    """Each tile is another shade, its face a red box; boxes are where the red is, and end with their tiles."""
    torch.manual_seed(0)
    samples = []
    for index in range(row * row):
        image = np.full((100, 120, 3), 10 + 5 * index, np.uint8)
        image[30:100, 20:70] = (250, 0, 0)
        faces = Faces(np.asarray([[20, 30, 70, 130]], np.float32), np.asarray([[[45, 60]] * 5], np.float32), np.zeros(1, bool))
        samples.append(Sample(str(index), image, faces if index or row == 1 else None))
    augment = Augment(96 // row, (1.0, 1.0), whole=1.0, colour=0.0)
    crop = mosaic([augment(sample, number) for number, sample in enumerate(samples)])
    pixels = _render(crop, *samples)
    assert pixels.shape == (3, 96, 96)
    assert len(crop.boxes) == row * row - (row > 1)
    assert crop.labelled is (row == 1), "the first photograph of the larger ones has no labels"
    red = (pixels[0] > 180) & (pixels[1] < 60)
    tiles = range(0 if row == 1 else 1, row * row)
    for tile, box, points in zip(tiles, crop.boxes, crop.landmarks, strict=True):
        side = 96 // row
        top, left = tile // row * side, tile % row * side
        there = torch.nonzero(red[top : top + side, left : left + side]) + torch.tensor([top, left])
        (first_row, first_column), (last_row, last_column) = there.amin(0).tolist(), (there.amax(0) + 1).tolist()
        np.testing.assert_allclose(box[[0, 1, 2]], [first_column, first_row, last_column], atol=1.5)
        assert last_row - 1.5 <= box[3] <= top + side
        assert first_column < points[0, 0] < last_column
        assert first_row < points[0, 1] < last_row


def test_both_mirrored_and_plain_crops_appear() -> None:
    torch.manual_seed(0)
    augment = Augment(64, (1.0, 1.0), whole=1.0, colour=0.0)
    assert {_mirrored(_render(augment(_map()), _map())) for _ in range(12)} == {True, False}


def test_crops_hold_faces_small_and_large() -> None:
    """The first trial failed for want of large faces."""
    torch.manual_seed(0)
    augment = Augment(352, (0.5, 2.0), whole=0.3, colour=0.0)
    portrait = Sample(
        "portrait",
        np.zeros((500, 400, 3), np.uint8),
        Faces(np.asarray([[50, 50, 350, 450]], np.float32), np.full((1, 5, 2), np.nan, np.float32), np.zeros(1, bool)),
    )
    heights = [float(box[3] - box[1]) for _ in range(60) for box in augment(portrait).boxes]
    assert min(heights) < 220
    assert max(heights) > 300


def test_a_photograph_without_faces_or_labels() -> None:
    torch.manual_seed(0)
    augment = Augment(64, (0.5, 2.0), whole=0.3, colour=1.0)
    for faces in (None, NO_FACES):
        for shape in ((3, 3), (1, 90), (300, 20)):
            sample = Sample("x", np.zeros((*shape, 3), np.uint8), faces)
            crop = augment(sample)
            assert _render(crop, sample).shape == (3, 64, 64)
            assert crop.boxes.shape == (0, 4)
            assert crop.landmarks.shape == (0, 5, 2)
            assert crop.labelled is (faces is not None)


def test_normalised_like_the_networks_input() -> None:
    from model.preprocess import InputSpec, prepare

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    config = VARIANTS["retinaface"]
    expected = prepare(image, InputSpec(mean=config.mean, colour_order=config.colour_order)).tensor
    found = normalise(torch.from_numpy(image).permute(2, 0, 1)[None], config)
    np.testing.assert_array_equal(found.numpy(), expected)

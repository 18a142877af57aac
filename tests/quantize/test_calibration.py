"""Which photographs are chosen, what ranges they give, and channels made alike."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from export.rewrites.equalise import equalise
from model.errors import UserError
from model.preprocess import InputSpec, load_image, prepare
from quantize.calibration import FEWEST, METHODS, Histogram, choose_photographs, entropy, find_ranges, mean_squared_error, percentile
from runtime_bench.detect import torch_detector
from runtime_bench.samples import PORTRAIT, sample_photographs


@pytest.fixture
def detector(public_retinaface):
    return torch_detector(public_retinaface, (96, 96))


@pytest.fixture
def folder(tmp_path):
    """Crops of the portrait from dark to light, one of them cut short."""
    portrait = load_image(PORTRAIT)
    for index in range(40):
        part = portrait[: 200 + 8 * index, 100 : 400 + 2 * index] * (0.2 + index / 50)
        Image.fromarray(part.astype(np.uint8)).save(tmp_path / f"{index:02}.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "00.jpg").read_bytes()[:500])
    return tmp_path


def test_the_same_photographs_every_time_and_of_every_kind(folder, detector):
    chosen = choose_photographs([folder], FEWEST, detector)
    again = choose_photographs([folder], FEWEST, detector)
    assert (chosen.photographs, chosen.digest()) == (again.photographs, again.digest())
    assert len(set(chosen.photographs)) == FEWEST
    assert chosen.skipped == 1
    light = [load_image(path).mean() for path in chosen.photographs]
    everyone = [load_image(path).mean() for path in folder.glob("[0-9]*.jpg")]
    assert min(light) == min(everyone)
    assert max(light) == max(everyone)


def test_the_digest_is_that_of_the_pictures(folder, detector):
    chosen = choose_photographs([folder], FEWEST, detector)
    before = chosen.digest()
    with chosen.photographs[3].open("ab") as file:
        file.write(b"\0")
    assert chosen.digest() != before


def test_too_few(folder, detector):
    for path in sorted(folder.glob("[1-9]*.jpg")):
        path.unlink()
    with pytest.raises(UserError, match=rf"10 photographs in .* \(1 more cannot be read\).* at least {FEWEST}"):
        choose_photographs([folder], 64, detector)


def test_a_single_colour(tmp_path, detector):
    for index in range(FEWEST):
        Image.new("RGB", (64, 64), (index, index, index)).save(tmp_path / f"{index}.png")
    with pytest.raises(UserError, match="single colour"):
        choose_photographs([tmp_path], FEWEST, detector)


def test_no_folder(tmp_path, detector):
    with pytest.raises(UserError, match="no folder"):
        choose_photographs([tmp_path / "nowhere"], FEWEST, detector)


@pytest.fixture
def histogram():
    histogram = Histogram()
    generator = np.random.default_rng(0)
    for scale in (0.1, 1.0, 3.0):  # each needs wider bins
        histogram.add(generator.normal(0.5, scale, 30_000).astype(np.float32))
    return histogram


def test_a_histogram_counts_everything_once(histogram):
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0.5, scale, 30_000).astype(np.float32) for scale in (0.1, 1.0, 3.0)])
    assert histogram.counts.sum() == len(values)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    width = histogram.centres()[1] - histogram.centres()[0]
    for share in (0.01, 0.5, 0.99):
        low, high = percentile(histogram, share) if share > 0.5 else percentile(histogram, 1 - share)
        expected = np.quantile(values, [1 - max(share, 1 - share), max(share, 1 - share)])
        assert np.allclose((low, high), expected, atol=2 * width)


def test_least_squares_are_least(histogram):
    values, counts = histogram.centres(), histogram.counts

    def error(low, high):
        step = (high - low) / 255
        zero = round(-low / step)
        return (counts * (((np.round(values / step) + zero).clip(0, 255) - zero) * step - values) ** 2).sum()

    low, high = mean_squared_error(histogram)
    assert error(low, high) < min(error(histogram.low, histogram.high), error(*percentile(histogram)), error(low / 2, high / 2))


def test_every_method_stays_within_what_was_seen(histogram):
    assert set(METHODS) == {"percentile", "min-max", "entropy", "mse"}
    for method in METHODS:
        low, high = METHODS[method](histogram)
        assert histogram.low <= low < 0 < high <= histogram.high
    assert entropy(histogram)[1] < histogram.high


def test_what_is_never_reached_gets_a_range_nevertheless():
    silent = Histogram()
    silent.add(np.zeros(10, np.float32))
    positive = Histogram()
    positive.add(np.array([2.0, 3.0], np.float32))
    ranges = find_ranges({"silent": silent, "positive": positive}, "min-max")
    assert ranges == {"silent": (0.0, 1.0), "positive": (0.0, 3.0)}


def test_equalising_keeps_the_function_and_evens_ranges_out(public_retinaface):
    before = public_retinaface.detector
    spec = InputSpec(mean=before.config.mean, colour_order=before.config.colour_order)
    images = [torch.from_numpy(prepare(image, spec, (160, 160)).tensor) for image in sample_photographs()]
    after = copy.deepcopy(before)
    equalise(after, images)
    with torch.no_grad():
        for image in images:
            for exact, moved in zip(before(image), after(image), strict=True):
                torch.testing.assert_close(moved, exact, rtol=1e-3, atol=1e-3)
            norms = [torch.nn.Sequential(*net.backbone.stage1[0][:2])(image).abs().amax((0, 2, 3)) for net in (before, after)]
    # In front of a depthwise convolution nothing speaks against equal ranges, over all images.
    spread = [float(norm.max() / norm.min()) for norm in norms]
    assert spread[1] < spread[0] / 2

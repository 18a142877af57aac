"""Reading photographs of every kind, and placing them into the network's input."""

import io

import numpy as np
import pytest
from PIL import Image

from model.errors import UserError
from model.preprocess import InputSpec, in_layout, load_image, prepare
from runtime_bench.samples import PORTRAIT

SPEC = InputSpec()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return load_image(PORTRAIT)


def saved(tmp_path, image: Image.Image, name: str, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_modes_agree_with_rgb(portrait, tmp_path):
    colour = Image.fromarray(portrait)
    grey = np.asarray(colour.convert("L"))
    assert np.array_equal(load_image(saved(tmp_path, colour, "rgb.png")), portrait)
    alpha = colour.copy()
    alpha.putalpha(128)
    assert np.array_equal(load_image(saved(tmp_path, alpha, "rgba.png")), portrait)
    stacked = np.stack([grey] * 3, axis=-1)
    assert np.array_equal(load_image(saved(tmp_path, Image.fromarray(grey), "grey.png")), stacked)
    sixteen = Image.fromarray(grey.astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    assert np.array_equal(load_image(saved(tmp_path, sixteen, "grey16.png")), stacked)
    assert np.array_equal(
        load_image(saved(tmp_path, colour.convert("P", palette=Image.Palette.ADAPTIVE), "palette.png")).shape, portrait.shape
    )
    cmyk = load_image(saved(tmp_path, colour.convert("CMYK"), "cmyk.jpg", quality=95))
    assert np.abs(cmyk.astype(int) - portrait).mean() < 4  # JPEG's own loss


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(portrait, tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored turned to the left, so that a viewer turns it right
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(portrait[:400])  # not square, so that turning shows
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(load_image(saved(tmp_path, stored, "turned.png", exif=exif)), portrait[:400])


def test_bad_files_are_named(tmp_path, portrait):
    whole = io.BytesIO()
    Image.fromarray(portrait).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:5000])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name, said in (
        ("absent.jpg", "no such photograph"),
        ("cut.jpg", "cut short"),
        ("text.jpg", "not an image"),
        ("empty.jpg", "not an image"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is a folder"):
        load_image(tmp_path)
    Image.new("1", (30_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="megapixels"):
        load_image(tmp_path / "bomb.png")


def test_letterbox_keeps_the_aspect_ratio_and_maps_back():
    image = np.zeros((300, 451, 3), np.uint8)
    image[120:140, 200:230] = 255
    prepared = prepare(image, SPEC, (640, 480))
    assert prepared.tensor.shape == (1, 3, 640, 480)
    assert prepared.tensor.dtype == np.float32
    background = -np.asarray(SPEC.mean, np.float32)
    assert np.array_equal(prepared.tensor[0, :, 0, 0], background)  # BGR, black minus mean
    assert not prepared.tensor[0, :, 319:].any()  # 300 * 480/451 = 319.3: below it the mean colour, which is 0
    bright = np.argwhere(prepared.tensor[0, 0] > 0)
    top, left = bright.min(axis=0)
    bottom, right = bright.max(axis=0) + 1
    found = np.asarray([left / prepared.scale_x, top / prepared.scale_y, right / prepared.scale_x, bottom / prepared.scale_y])
    assert np.abs(found - [200, 120, 230, 140]).max() < 1


def test_colour_order_mean_and_scale():
    image = np.full((2, 2, 3), (10, 20, 30), np.uint8)  # RGB
    assert prepare(image, InputSpec(mean=(1, 2, 3))).tensor[0, :, 0, 0].tolist() == [29, 18, 7]
    spec = InputSpec(mean=(1, 2, 3), scale=0.5, colour_order="RGB")
    assert prepare(image, spec).tensor[0, :, 0, 0].tolist() == [4.5, 9, 13.5]


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (3, 7)])
def test_extreme_shapes(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    assert prepare(image, SPEC, (320, 320)).tensor.shape == (1, 3, 320, 320)
    assert prepare(image, SPEC).tensor.shape == (1, 3, *shape)


def test_a_photograph_too_large_for_its_own_size_is_refused():
    image = np.broadcast_to(np.uint8(0), (20_000, 20_000, 3))
    with pytest.raises(UserError, match="20000x20000 is too large"):
        prepare(image, SPEC)


@pytest.mark.parametrize("size", [None, (96, 160)])
def test_pixels_in_a_row_hold_the_same_values_as_planes(portrait, size):
    planes = prepare(portrait, InputSpec(scale=0.5), size).tensor
    pixels = prepare(portrait, InputSpec(scale=0.5, layout="NHWC"), size).tensor
    assert np.array_equal(planes, pixels)
    assert planes.flags.c_contiguous
    assert pixels.transpose(0, 2, 3, 1).flags.c_contiguous
    turned = in_layout(planes, "NHWC")
    assert np.array_equal(turned, planes)
    assert turned.strides[1:] == pixels.strides[1:]
    assert np.shares_memory(in_layout(turned, "NHWC"), turned)
    assert in_layout(turned, "NCHW").flags.c_contiguous

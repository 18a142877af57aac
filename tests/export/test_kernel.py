"""The deformable kernel against torchvision: every implementation that this processor has, both forms, both memory layouts."""

import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, leaky_relu
from torchvision.ops import deform_conv2d

from export.kernel import VERSION, host
from export.kernel.bindings import TAPS, Layer, library_version, open_int8_kernels, open_kernels
from export.kernel.build import Target, build, targets
from model.errors import UserError

SHAPES = [
    # height, width, inputs, outputs
    (1, 1, 3, 5),
    (1, 7, 16, 16),
    (5, 1, 4, 20),
    (2, 2, 16, 64),
    (9, 17, 64, 16),
    (13, 37, 8, 37),
    (20, 20, 64, 64),
    (6, 11, 300, 130),
]
SPREADS_PX = [0.0, 0.7, 4.0, 300.0]
"""Standard deviations of the offsets."""


def built(tmp_path_factory, name, *options, target=None, programs=()):
    """A folder with the kernel built by CMake, without any runtime's headers."""
    out = tmp_path_factory.mktemp(name)
    try:
        build(target or Target(host()), out, programs=programs, options=options)
    except UserError as error:
        if str(error).startswith("no "):  # no CMake, no compiler
            pytest.skip(str(error))
        raise
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return next(built(tmp_path_factory, "kernel").glob("libacwface_kernel.*"))


@pytest.fixture(scope="module")
def kernels(library):
    return open_kernels(library)


class Problem:
    """A random layer, its expected output (O, H, W), and its tensors as the kernel wants them."""

    def __init__(self, shape, spread_px, limit=math.inf, slope=1.0, nhwc=False, extra=0):
        height, width, inputs, outputs = shape
        x = torch.randn(1, inputs, height, width)
        predicted = torch.randn(1, 3 * TAPS, height, width) * torch.tensor([spread_px] * 2 * TAPS + [2.0] * TAPS).view(-1, 1, 1)
        weight, bias = torch.randn(outputs, inputs, 3, 3) / (TAPS * inputs) ** 0.5, torch.randn(outputs)
        offset, modulator = predicted.split((2 * TAPS, TAPS), 1)
        summed = deform_conv2d(x, offset.clamp(-limit, limit), weight, bias, padding=1, mask=2 * modulator.sigmoid())
        self.expected = leaky_relu(summed, slope)[0].numpy()
        padded = torch.cat([predicted[0], torch.randn(extra, height, width)])
        self.layer = Layer(dense(padded.permute(1, 2, 0) if nhwc else padded), dense(bias), limit, slope, nhwc)
        self.image = dense(x[0].permute(1, 2, 0))
        self.weight = dense(weight.permute(2, 3, 1, 0).flatten(0, 1))
        self.mixed = dense(torch.einsum("hwc,kco->hwko", x[0].permute(1, 2, 0), torch.from_numpy(self.weight)).flatten(2))

    def run(self, kernel, form, *pixels, out=None):
        """(O, H, W)"""
        out = self.layer.empty_output() if out is None else out
        if form == "sample":
            kernel.sample(self.layer, self.mixed, out, *pixels)
        else:
            kernel.tiled(self.layer, self.image, self.weight, out, *pixels)
        return np.moveaxis(out, -1, 0) if self.layer.nhwc else out


def dense(tensor):
    return np.ascontiguousarray(tensor.numpy())


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("form", ["sample", "tiled"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_computes_what_torchvision_does(kernels, shape, form, nhwc):
    for spread_px in SPREADS_PX:
        for limit, slope in ((math.inf, 1.0), (1.0, 0.1)):
            problem = Problem(shape, spread_px, limit, slope, nhwc, extra=3)
            for kernel in kernels:
                np.testing.assert_allclose(problem.run(kernel, form), problem.expected, atol=2e-5, err_msg=f"{kernel.name} {spread_px}")


@pytest.mark.parametrize("form", ["sample", "tiled"])
def test_how_pixels_are_split_does_not_matter(kernels, form):
    problem = Problem((7, 23, 32, 48), 1.0)
    for kernel in kernels:
        whole = problem.run(kernel, form)
        parts = problem.layer.empty_output()
        for first, last in ((100, 161), (0, 37), (37, 100)):
            problem.run(kernel, form, first, last, out=parts)
        np.testing.assert_array_equal(parts, whole, err_msg=kernel.name)


@pytest.mark.parametrize("modulator", [-200.0, -88.0, -30.0, 0.0, 30.0, 88.0, 200.0])
def test_modulators_of_any_size(kernels, modulator):
    problem = Problem((4, 4, 8, 16), 0.0)
    problem.layer.predicted[2 * TAPS :] = modulator
    ones = np.ones_like(problem.mixed)
    problem.layer.bias[:] = 0.0
    for kernel in kernels:
        out = kernel.sample(problem.layer, ones, problem.layer.empty_output())
        # An inner pixel sums nine taps of ones.
        assert out[0, 1, 1] == pytest.approx(9 * 2 / (1 + math.exp(-modulator)), rel=3e-7, abs=1e-35), kernel.name


def test_what_is_not_a_number(kernels):
    problem = Problem((5, 6, 8, 16), 0.5)
    problem.layer.predicted[0, 2, 3] = math.nan  # an offset: its tap samples zero
    problem.layer.predicted[3, 2, 4] = math.inf
    problem.layer.predicted[2 * TAPS, 0, 0] = math.nan  # a modulator: its pixel is NaN
    expected = problem.run(kernels[-1], "sample").copy()
    assert np.isnan(expected[:, 0, 0]).all()
    assert np.isnan(expected).sum() == len(expected)
    for kernel in kernels[:-1]:
        for form in ("sample", "tiled"):
            np.testing.assert_allclose(problem.run(kernel, form), expected, atol=2e-5, err_msg=kernel.name)


@pytest.mark.parametrize(
    ("height", "width", "inputs", "outputs"), [(1, 1, 1, 1), (7, 9, 16, 27), (20, 20, 64, 54), (5, 33, 21, 70), (2, 1, 37, 9)]
)
def test_the_convolution_that_predicts(kernels, height, width, inputs, outputs):
    x, weight, bias = torch.randn(1, inputs, height, width), torch.randn(outputs, inputs, 3, 3) / (9 * inputs) ** 0.5, torch.randn(outputs)
    expected = dense(conv2d(x.double(), weight.double(), bias.double(), padding=1)[0].permute(1, 2, 0))
    image, taps = (
        dense(torch.cat([x[0], torch.full((3, height, width), torch.nan)]).permute(1, 2, 0)),
        dense(weight.permute(2, 3, 1, 0).flatten(0, 1)),
    )
    for kernel in kernels:
        whole = kernel.conv3x3(image, taps, dense(bias))
        np.testing.assert_allclose(whole, expected, atol=3e-6, err_msg=kernel.name)
        parts = [kernel.conv3x3(image, taps, dense(bias), first, last) for first, last in ((0, 1), (1, None))]
        np.testing.assert_array_equal(np.where(np.isnan(parts[0]), parts[1], parts[0]), whole, err_msg=kernel.name)


@pytest.fixture(scope="module")
def int8_kernels(library):
    return open_int8_kernels(library)


class IntegerProblem:
    """A random layer on integers, and what floats that are equal to them give: (H, W, O) in steps of the output, not rounded."""

    ZERO, OUT_ZERO = 117, 90

    def __init__(self, shape, spread_px=0.0, limit=math.inf, slope=1.0):
        height, width, inputs, outputs = shape
        random = np.random.default_rng(0)
        # Photographs' features are smooth, more or less: each pixel is near the one before.
        values = np.clip(self.ZERO + 25 * random.normal(size=(height, width, inputs + 3)).cumsum(1) % 256 - 128, 0, 255)
        self.image = values.astype(np.uint8)
        self.weight = random.integers(-127, 128, (TAPS, inputs, outputs), np.int8)
        self.scale = random.uniform(0.9, 1.1, outputs).astype(np.float32) * np.float32(40 / (74 * 74 * 3 * inputs**0.5))
        bias = random.normal(0, 20, outputs).astype(np.float32)
        spread = [spread_px] * 2 * TAPS + [1.0] * TAPS
        self.predicted = (random.normal(size=(height, width, 3 * TAPS)) * spread).astype(np.float32)
        self.layer = Layer(self.predicted, bias, limit, slope, nhwc=True)
        x = torch.from_numpy(self.image[..., :inputs].astype(np.float64) - self.ZERO).permute(2, 0, 1)[None]
        weight = torch.from_numpy(self.weight.astype(np.float64) * self.scale).view(3, 3, inputs, outputs).permute(3, 2, 0, 1)
        offset, modulator = torch.from_numpy(self.predicted.astype(np.float64)).permute(2, 0, 1)[None].split((2 * TAPS, TAPS), 1)
        mask, bias = 2 * modulator.sigmoid(), torch.from_numpy(bias.astype(np.float64))
        summed = deform_conv2d(x, offset.clamp(-limit, limit), weight, bias, padding=1, mask=mask)
        self.deformed = dense(leaky_relu(summed, slope)[0].permute(1, 2, 0)) + self.OUT_ZERO
        self.convolved = dense(conv2d(x, weight, bias, padding=1)[0].permute(1, 2, 0))

    def deform(self, kernel, *pixels):
        return kernel.deform(self.layer, self.image, self.ZERO, self.weight, self.scale, self.OUT_ZERO, *pixels)

    def conv3x3(self, kernel, *pixels):
        return kernel.conv3x3(self.image, self.ZERO, self.weight, self.scale, self.layer.bias, *pixels)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integers_give_what_torchvision_gives_on_equal_floats(int8_kernels, shape):
    for spread_px, limit, slope in ((0.0, math.inf, 1.0), (0.7, 1.0, 0.1), (4.0, math.inf, 0.1)):
        problem = IntegerProblem(shape, spread_px, limit, slope)
        inside = (problem.deformed > 0) & (problem.deformed < 255)
        for kernel in int8_kernels:
            out = problem.deform(kernel)
            error = out - problem.deformed.clip(0, 255)
            # Half a step for the output; as much again for what was sampled, rounded to steps of the image.
            assert np.abs(error).max() < 2.5, kernel.name
            assert np.sqrt(np.square(error[inside]).mean()) < 0.6, kernel.name
            np.testing.assert_allclose(problem.conv3x3(kernel), problem.convolved, rtol=1e-5, atol=1e-4, err_msg=kernel.name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_integers_are_the_same_by_every_fast_implementation(int8_kernels, shape):
    """The scalar one may round a sampling weight the other way: it has another exp."""
    problem = IntegerProblem(shape, 1.0, slope=0.1)
    fast = int8_kernels[:-1]
    for kernel in fast[1:]:
        np.testing.assert_array_equal(problem.deform(kernel), problem.deform(fast[0]), err_msg=kernel.name)
        np.testing.assert_array_equal(problem.conv3x3(kernel), problem.conv3x3(fast[0]), err_msg=kernel.name)


def test_how_pixels_are_split_does_not_matter_to_integers(int8_kernels):
    problem = IntegerProblem((7, 23, 32, 48), 1.0)
    for kernel in int8_kernels:
        cuts = ((100, 161), (0, 37), (37, 100))
        np.testing.assert_array_equal(sum(problem.deform(kernel, *cut) for cut in cuts), problem.deform(kernel), err_msg=kernel.name)
        parts = np.nansum([problem.conv3x3(kernel, *cut) for cut in cuts], axis=0, dtype=np.float32)
        np.testing.assert_array_equal(parts, problem.conv3x3(kernel), err_msg=kernel.name)


def test_integers_of_what_is_not_a_number(int8_kernels):
    problem = IntegerProblem((5, 6, 16, 16), 0.5)
    problem.predicted[2, 3, 0] = 1e9  # an offset: its tap samples zero
    problem.predicted[2, 4, 2 * TAPS :] = -87.0
    expected = [problem.deform(kernel) for kernel in int8_kernels]
    problem.predicted[2, 3, 0] = math.nan
    problem.predicted[2, 4, 2 * TAPS :] = math.nan
    for kernel, numbers in zip(int8_kernels, expected, strict=True):
        np.testing.assert_array_equal(problem.deform(kernel), numbers, err_msg=kernel.name)


def test_the_library_names_its_version(library):
    assert library_version(library) == VERSION


def test_sanitizers_find_nothing(tmp_path_factory):
    """Random layers with borders, NaN, infinite and huge offsets; arrays end where they end."""
    options = ("-DACWFACE_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Debug")
    out = built(tmp_path_factory, "sanitized", *options, programs=["acwface_check"])
    result = subprocess.run([out / "obj" / "acwface_check", "40", "7"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "40 layers, 0 failures" in result.stdout


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The emulator, and the checker for ARM."""
    emulator = shutil.which("qemu-aarch64")
    target = next((target for target in targets()[0] if target.name == "linux-aarch64" and target.options), None)
    if emulator is None or target is None:
        pytest.skip("no qemu-aarch64 and aarch64-linux-gnu-gcc (Debian: apt install qemu-user gcc-aarch64-linux-gnu)")
    out = built(tmp_path_factory, "arm", "-DCMAKE_EXE_LINKER_FLAGS=-static", target=target, programs=["acwface_check"])
    return emulator, out / "obj" / "acwface_check"


@pytest.fixture(scope="module")
def checked_here(tmp_path_factory):
    """What the checker says on this machine."""
    program = built(tmp_path_factory, "here", programs=["acwface_check"]) / "obj" / "acwface_check"
    return subprocess.run([program, "30", "11"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("processor", "names"), [("cortex-a53", "neon scalar"), ("cortex-a76", "neon-dot neon scalar")])
def test_neon_under_emulation(emulated, checked_here, processor, names):
    """The same layers on emulated ARM processors, and the same integers as here."""
    emulator, program = emulated
    result = subprocess.run([emulator, "-cpu", processor, program, "30", "11"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    there = re.search(rf": neon scalar; int8: {names}, checksum (\w+); 30 layers, 0 failures", result.stdout)
    assert there, result.stdout
    if "int8: scalar," not in checked_here:  # on a processor without AVX2
        assert f"checksum {there[1]};" in checked_here


def test_a_project_that_was_moved_builds(tmp_path_factory):
    out = built(tmp_path_factory, "moved", programs=("acwface_kernel",))
    cache = out / "obj" / "CMakeCache.txt"
    cache.write_text(cache.read_text().replace("CMAKE_HOME_DIRECTORY:INTERNAL=", "CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere"))
    build(Target(host()), out, programs=("acwface_kernel",))

"""The training forms compute what the ordinary forms compute, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d
from torchvision.ops import deform_conv2d

from model.attention import SpatialAttention, fourier_conv
from model.config import VARIANTS
from model.deform_conv import DeformConv2d, mix_then_sample
from model.detector import build_detector
from train import deform_kernel
from train.deform_kernel import cpu_operator

OPERATORS = {"standard": mix_then_sample, "kernel": cpu_operator()}


def _torchvision(x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return deform_conv2d(x, offset, weight, padding=1, mask=mask)


def test_a_compiler_is_here() -> None:
    assert OPERATORS["kernel"] is not mix_then_sample, "without a C++ compiler the kernel goes untested"


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize(("channels", "outputs"), [(64, 16), (16, 16), (8, 24), (5, 3)])
@pytest.mark.parametrize("spread", [0.3, 5.0])  # 5 pixels reach far beyond the border of a 7x9 map
def test_deformable_forms_equal_torchvision(operator: deform_kernel.Operator, channels: int, outputs: int, spread: float) -> None:
    torch.manual_seed(channels)
    shapes = ((3, channels, 7, 9), (3, 18, 7, 9), (3, 9, 7, 9), (outputs, channels, 3, 3))
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    inputs[1] *= spread
    for tensor in inputs:
        tensor.requires_grad_()
    expected, found = _torchvision(*inputs), operator(*inputs)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    for name, mine, theirs in zip(
        ("x", "offset", "mask", "weight"),
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10, msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_gradients_are_those_of_the_function(operator: deform_kernel.Operator) -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 4, 5), (2, 18, 4, 5), (2, 9, 4, 5), (2, 3, 3, 3))
    inputs = [
        (torch.rand(shape, dtype=torch.float64) * 0.8 + 0.1).requires_grad_() for shape in shapes
    ]  # no sampling point on a pixel, where it has a kink
    assert torch.autograd.gradcheck(operator, inputs)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_points_on_the_border(operator: deform_kernel.Operator) -> None:
    """Whole pixels, exactly the last one, exactly one beyond: the values agree."""
    x = torch.arange(12.0).view(1, 1, 3, 4) + 1
    weight = torch.ones(1, 1, 3, 3)
    for y in (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0):
        offset = torch.full((1, 18, 3, 4), y)
        mask = torch.ones(1, 9, 3, 4)
        torch.testing.assert_close(operator(x, offset, mask, weight), _torchvision(x, offset, mask, weight), rtol=1e-5, atol=1e-4)


def test_without_a_compiler_the_standard_form_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(deform_kernel.shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        assert deform_kernel._library.__wrapped__() is None


def test_a_broken_compiler_is_no_disaster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.warns(UserWarning, match="cannot build"):
        assert deform_kernel._library.__wrapped__() is None


@pytest.mark.parametrize(("height", "width"), [(3, 5), (25, 31), (60, 44)])
def test_attention_by_fourier_equals_the_convolution(height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, 49, 49, dtype=torch.float64, requires_grad=True)
    expected, found = conv2d(x, weight, padding=24), fourier_conv(x, weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, (x, weight), upstream), torch.autograd.grad(expected, (x, weight), upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_whole_network_in_training_form() -> None:
    """And back: the ordinary form is untouched."""
    detector = build_detector(VARIANTS["acwface_dcn"], seed=1)
    image = torch.randn(1, 3, 72, 56, generator=torch.Generator().manual_seed(0)) * 50
    with torch.no_grad():
        ordinary = detector(image)
        for operator in OPERATORS.values():
            detector.use_training_forms(operator)
            for fast, slow in zip(detector(image), ordinary, strict=True):
                torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)
        detector.use_training_forms(None)
        for again, before in zip(detector(image), ordinary, strict=True):
            assert torch.equal(again, before)
    for module in detector.modules():
        if isinstance(module, DeformConv2d):
            assert module.training_operator is None
        if isinstance(module, SpatialAttention):
            assert not module.by_fourier


def test_offset_limit_holds_in_training_form() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 4)
    torch.nn.init.normal_(layer.offset_conv.weight, std=3)
    layer.offset_limit = 1.0
    x = torch.randn(1, 4, 8, 8)
    expected = layer(x)
    layer.training_operator = mix_then_sample
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_the_bench_runs(cli) -> None:
    code, out, _ = cli("train", "bench", "--images", 1, "--size", 64, "--repeats", 1)
    assert code == 0
    assert "torchvision" in out
    assert "a batch" in out

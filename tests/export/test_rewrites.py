"""Exact rewrites and deformable routes against the torch model, in double precision: what differs by more than rounding is wrong."""

from functools import cache

import msgspec
import pytest
import torch
from torch import nn
from torch.nn.functional import leaky_relu
from torchvision.ops import deform_conv2d

from export.deform_routes import ROUTES
from export.rewrites import MOBILE_REWRITES, REWRITES, apply_rewrites
from export.rewrites.attention import BlockConv, LineConv, RowConv
from export.rewrites.deform import DeployDeformConv
from export.tflite_routes import TFLITE_ROUTES
from model.config import VARIANTS
from model.deform_conv import DeformConv2d
from model.detector import build_detector
from model.preprocess import InputSpec, load_image, prepare
from runtime_bench.samples import PORTRAIT

TOLERANCE = 1e-9
CHANGED = {
    "split-attention": ("acwface", "acwface_dcn_lite"),
    "pool-channels": ("acwface",),
    "weigh-then-upsample": ("retinaface_wfpn",),
    "merge-predictions": ("acwface_dcn",),
    "fold-norm": ("acwface_dcn",),
    "mix-then-sample": ("acwface_dcn",),
    "sample-in-parts": ("acwface_dcn",),
    "merge-heads": ("retinaface", "acwface_dcn"),
}


@pytest.fixture(autouse=True)
def _double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def photograph():
    """An eye, at a size that no stride divides."""
    return torch.from_numpy(prepare(load_image(PORTRAIT)[60:163, 180:301], InputSpec(mean=(104.0, 117.0, 123.0))).tensor).double()


@cache
def seeded(variant, **changes):
    torch.set_default_dtype(torch.float32)  # the same weights as everywhere
    detector = build_detector(msgspec.structs.replace(VARIANTS[variant], **changes), seed=0)
    torch.set_default_dtype(torch.float64)
    return detector.double()


def largest_difference(first, second):
    return max(float((mine - theirs).abs().max()) for mine, theirs in zip(first, second, strict=True))


def test_every_rewrite_is_tested():
    assert list(CHANGED) == list(REWRITES)


@pytest.mark.parametrize(("name", "variant"), [(name, variant) for name, variants in CHANGED.items() for variant in variants])
def test_each_rewrite_alone_keeps_the_function(name, variant, photograph):
    detector = seeded(variant)
    route = "native" if detector.config.deform else "none"
    plain = apply_rewrites(detector, route, REWRITES)
    rewritten = apply_rewrites(detector, route, REWRITES.keys() - {name})
    with torch.inference_mode():
        raw = detector(photograph)
        expected = raw.class_logits.softmax(-1)[..., 1], raw.box_deltas, raw.landmark_deltas
        assert largest_difference(plain(photograph), expected) < TOLERANCE
        assert largest_difference(rewritten(photograph), expected) < TOLERANCE
    layers = [module for module in rewritten.modules() if isinstance(module, DeployDeformConv)]
    if name == "mix-then-sample":
        assert sum(layer.mixed for layer in layers) == 6  # the 64 to 16 layers: two for each level
    elif name == "sample-in-parts":
        assert sum(layer.parted for layer in layers) == 8  # and the two of the neck
    else:
        assert repr(rewritten) != repr(plain)


@pytest.mark.parametrize(
    ("routes", "rewrites", "route"),
    [(ROUTES, REWRITES, route) for route in ROUTES] + [(TFLITE_ROUTES, MOBILE_REWRITES, route) for route in TFLITE_ROUTES],
)
@pytest.mark.parametrize("limit", [None, 0.5])
def test_all_rewrites_together_on_every_route(routes, rewrites, route, limit, photograph):
    if route == "bounded" and limit is None:
        pytest.skip("needs a limit")
    detector = seeded("acwface_dcn", offset_limit=limit)
    with torch.inference_mode():
        raw = detector(photograph)
        rewritten = apply_rewrites(detector, route, routes=routes, rewrites=rewrites)(photograph)
    assert largest_difference(rewritten[1:], raw[1:]) < TOLERANCE
    assert float((rewritten.scores - raw.class_logits.softmax(-1)[..., 1]).abs().max()) < TOLERANCE


def test_the_detector_itself_is_left_alone(photograph):
    detector = seeded("acwface_dcn")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    apply_rewrites(detector, "decomposed")
    assert detector.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", ["direct", "mixed", "parted"])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(8, 4, (7, 5)), (4, 4, (1, 1)), (3, 6, (2, 9)), (40, 64, (40, 48))])
def test_operators_of_routes_against_torchvision(route, form, inputs, outputs, size):
    """Offsets of up to tens of pixels: far outside the image, on its border, between its pixels."""
    torch.manual_seed(inputs)
    layer = DeployDeformConv(DeformConv2d(inputs, outputs), ROUTES[route])
    layer.mixed, layer.parted = form == "mixed", form == "parted" and ROUTES[route].parted is not None
    layer.bias = nn.Parameter(torch.randn(outputs))
    layer.slope = 0.1
    for predictor, gain in zip(layer.predictors, (8.0, 1.0), strict=True):
        nn.init.normal_(predictor.weight)
        nn.init.normal_(predictor.bias)
        with torch.no_grad():
            predictor.weight.mul_(gain / inputs)
    x = torch.randn(1, inputs, *size)
    with torch.inference_mode():
        offset, modulator = (predictor(x) for predictor in layer.predictors)
        expected = leaky_relu(deform_conv2d(x, offset, layer.weight, layer.bias, padding=1, mask=2 * modulator.sigmoid()), 0.1)
        assert float((layer(x) - expected).abs().max()) < TOLERANCE


@pytest.mark.parametrize(("form", "kernels"), [(RowConv, (3, 7, 49)), (BlockConv, (9, 17, 49))])
@pytest.mark.parametrize("size", [(16, 12), (21, 37), (1, 1)])
def test_attention_convolutions_at_any_size(form, kernels, size):
    x = torch.randn(1, 2, *size)
    for kernel in kernels:
        conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        with torch.inference_mode():
            assert float((form(conv)(x) - conv(x)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("size", [(16, 12), (21, 37), (1, 1)])
@pytest.mark.parametrize("kernel", [(1, 49), (49, 1), (1, 5)])
def test_line_convolutions_at_any_size(kernel, size):
    x = torch.randn(1, 2, *size)
    conv = nn.Conv2d(2, 3, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
    with torch.inference_mode():
        assert float((LineConv(conv)(x) - conv(x)).abs().max()) < TOLERANCE

"""Transplanting keeps the function as far as the architectures allow."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from model.config import VARIANTS, ModelConfig
from model.detector import Detector, RawOutputs, build_detector
from model.errors import UserError
from train.transfer import fit_context, transplant

IMAGE = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(3)) * 50


def _answers(detector: Detector) -> RawOutputs:
    with torch.no_grad():
        return detector.eval()(IMAGE)


def _difference(a: Detector, b: Detector) -> float:
    return max(float((mine - theirs).abs().max()) for mine, theirs in zip(_answers(a), _answers(b), strict=True))


@pytest.mark.parametrize(
    "config",
    [
        VARIANTS["retinaface"],
        VARIANTS["retinaface_wfpn"],
        ModelConfig("attention", attention="edam"),
        ModelConfig("deformable", deform=("neck", "context")),
        ModelConfig("all", neck="wfpn", attention="edam", deform=("neck", "context"), offset_limit=1.0),
    ],
    ids=lambda config: config.variant,
)
def test_added_modules_change_nothing(config: ModelConfig) -> None:
    source = build_detector(VARIANTS["retinaface"], seed=0)
    assert _difference(source, transplant(source, config)) < 1e-3


def test_deformable_from_its_ordinary_twin() -> None:
    """From a network that has EDAM and SCM already; its attention is not silent and must be kept."""
    source = build_detector(VARIANTS["acwface"], seed=0)
    assert _difference(source, transplant(source, replace(VARIANTS["acwface"], deform=("neck", "context")))) < 1e-3


def test_same_variant_with_a_limit() -> None:
    source = build_detector(VARIANTS["acwface_dcn"], seed=0)
    assert _difference(source, transplant(source, VARIANTS["acwface_dcn"])) == 0
    assert transplant(source, replace(VARIANTS["acwface_dcn"], offset_limit=1.0)).config.offset_limit == 1.0


def test_source_is_left_alone() -> None:
    source = build_detector(VARIANTS["retinaface"], seed=0)
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    transplant(source, VARIANTS["acwface_dcn"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize("variant", ["acwface_dcn", "acwface", "retinaface_wfpn_scm"])
def test_branches_that_fit_are_kept(variant: str) -> None:
    """With heads that listen only to what SCM can hold, the function is the same."""
    source = build_detector(VARIANTS["retinaface"], seed=0)
    with torch.no_grad():
        for heads in (source.class_heads, source.box_heads, source.landmark_heads):
            for head in heads:
                head.weight[:, 5:21] = 0  # some 16 of branch1's 32 channels
    assert _difference(source, transplant(source, VARIANTS[variant])) < 1e-3


def test_fitting_the_context_brings_the_rest() -> None:
    source = build_detector(VARIANTS["retinaface"], seed=0)
    torch.manual_seed(0)
    target = transplant(source, VARIANTS["acwface_dcn"])
    before = [float((mine - theirs).square().mean()) for mine, theirs in zip(_answers(target), _answers(source), strict=True)]
    explained = fit_context(source, target, [IMAGE])
    after = [float((mine - theirs).square().mean()) for mine, theirs in zip(_answers(target), _answers(source), strict=True)]
    assert all(share > 0.5 for share in explained)
    assert all(now < then for now, then in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (VARIANTS["acwface_dcn"], VARIANTS["acwface"], "poorer"),
        (VARIANTS["acwface"], VARIANTS["retinaface"], "poorer"),
        (VARIANTS["retinaface"], replace(VARIANTS["acwface_dcn"], colour_order="RGB"), "colour_order"),
        (VARIANTS["retinaface"], replace(VARIANTS["acwface_dcn"], min_sizes=((8, 16), (32, 64), (128, 256))), "min_sizes"),
    ],
)
def test_what_cannot_be_transplanted_is_refused(source: ModelConfig, target: ModelConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        transplant(build_detector(source), target)

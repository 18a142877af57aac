"""Transplanting keeps the function as far as the architectures allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from model.anchors import make_anchors
from model.attention import EDAM
from model.config import VARIANTS, ModelConfig
from model.deform_conv import DeformConv2d
from model.detector import Detector, RawOutputs, build_detector
from model.errors import UserError
from model.postprocess import decode_boxes, decode_landmarks
from train.recipe import Batch, Data, Recipe
from train.transfer import fit_context, fit_neck, slim, transplant

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


@pytest.mark.parametrize("variant", ["acwface", "acwface_dcn"])
def test_attention_and_deformable_layers_join_a_plain_network(variant: str) -> None:
    """Dense fusion, too: that of the deformable network is depthwise, which is a special case of it."""
    plain = Recipe("acwface_dcn", Data((Batch(64, 1),)), steps=1, plain=True).config
    source = build_detector(plain, seed=0)
    assert not any(isinstance(module, EDAM | DeformConv2d) for module in source.modules())
    assert _difference(source, transplant(source, VARIANTS[variant])) < 1e-3


def test_same_variant_with_a_limit() -> None:
    source = build_detector(VARIANTS["acwface_dcn"], seed=0)
    assert _difference(source, transplant(source, VARIANTS["acwface_dcn"])) == 0
    assert transplant(source, replace(VARIANTS["acwface_dcn"], offset_limit=1.0)).config.offset_limit == 1.0


@pytest.mark.parametrize("variant", ["retinaface", "acwface_dcn"])
def test_other_anchors_same_boxes(variant: str) -> None:
    """Decoded for the new anchors, boxes and landmarks are those that they were for the old ones; scores do not change."""
    old = VARIANTS[variant]
    new = replace(old, min_sizes=((10, 20), (48, 96), (256, 384)))
    source = build_detector(old, seed=0)
    target = transplant(source, new)
    decoded = []
    for detector, config in ((source, old), (target, new)):
        scores, boxes, landmarks = (values[0].numpy() for values in _answers(detector))
        anchors = make_anchors(*IMAGE.shape[2:], config.strides, config.min_sizes)
        decoded.append((scores, decode_boxes(boxes, anchors, config.variances), decode_landmarks(landmarks, anchors, config.variances)))
    for before, after in zip(*decoded, strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-2)
    assert not np.allclose(*(_answers(detector).box_deltas.numpy() for detector in (source, target)), atol=0.1)


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


def test_a_bifpn_learns_what_the_pyramid_gives() -> None:
    source = build_detector(VARIANTS["retinaface"], seed=0)
    torch.manual_seed(0)
    target = transplant(source, VARIANTS["biretina"])
    with torch.no_grad():
        # The 1x1 convolutions are inherited; LeakyReLU, which the pyramid has behind them, BiFPN has not.
        features = source.backbone(IMAGE)
        for level, lateral in enumerate(source.neck.laterals):
            for own in (target.neck.laterals[level], target.neck.laterals[level + 2] if level else None):
                if own is not None:
                    torch.testing.assert_close(own(features[level]), lateral[1](lateral[0](features[level])), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(target.context[1].branch2[0].weight, source.context[1].branch2[0].weight)
    explained = fit_neck(source, target, [IMAGE], epochs=100)
    assert all(share > 0 for share in explained)  # of noise; nothing learnt is far below 0
    with torch.no_grad():
        _, middle, _ = target.eval().neck(features)
        expected = source.neck(features)[1]
        missed = (middle - expected).square().mean() / expected.var((0, 2, 3), correction=0).mean()
    assert 1 - missed.item() == pytest.approx(explained[1], abs=1e-4)


def test_slimming_keeps_the_function_where_nothing_is_lost() -> None:
    """Nothing is where offsets are 0, a kernel has its full rank and a merge stays dense; modulators go into the weights."""
    source = build_detector(VARIANTS["acwface_dcn"], seed=0)
    with torch.no_grad():
        for layer in source.modules():
            if isinstance(layer, DeformConv2d):
                for parameter in (layer.offset_conv.weight, layer.offset_conv.bias, layer.modulator_conv.weight):
                    parameter.zero_()
                layer.modulator_conv.bias.copy_(torch.linspace(-1, 1, 9))
    lighter = replace(VARIANTS["acwface_dcn_lite"], merge_rank=None, attention_rank=49)
    assert _difference(source, slim(source, lighter, [IMAGE])) < 1e-3


def test_slimming_shares_what_is_predicted() -> None:
    source = build_detector(VARIANTS["acwface_dcn"], seed=0)
    with torch.no_grad():
        for scm in source.context:
            for left, right in ((scm.branch1, scm.hidden2), (scm.branch2, scm.hidden3), (scm.branch3, scm.hidden4)):
                for name in ("offset_conv", "modulator_conv"):
                    getattr(left[0], name).load_state_dict(getattr(right[0], name).state_dict())
    same = replace(VARIANTS["acwface_dcn"], context="scm_shared")
    assert _difference(source, slim(source, replace(same, deform=("context",), merge_rank=None), [IMAGE])) > 1e-3  # merges had offsets
    target = slim(source, same, [IMAGE])
    for mine, theirs in zip(target.neck.merges, source.neck.merges, strict=True):
        mine.load_state_dict(theirs.state_dict())
    assert _difference(source, target) < 1e-3


def test_a_merge_of_lower_rank_loses_nothing_of_one_that_is() -> None:
    config = replace(VARIANTS["acwface"], context_fusion="depthwise")
    source = build_detector(config, seed=0)
    with torch.no_grad():
        weight = source.neck.merges[0][0].weight
        weight.copy_(torch.einsum("oi,ickl->ockl", torch.randn(64, 20) / 8, weight[:20]))
    assert _difference(source, slim(source, replace(config, context="scm_shared", merge_rank=20), [IMAGE])) < 1e-3


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (VARIANTS["biretina"], VARIANTS["retinaface"], "poorer"),
        (VARIANTS["biretina"], VARIANTS["retinaface_wfpn"], "poorer"),
        (VARIANTS["acwface_dcn"], VARIANTS["acwface"], "poorer"),
        (VARIANTS["acwface"], VARIANTS["retinaface"], "poorer"),
        (VARIANTS["retinaface"], VARIANTS["acwface_dcn_lite"], "start from that"),
        (VARIANTS["acwface_dcn_lite"], VARIANTS["acwface_dcn"], "start from that"),
        (VARIANTS["acwface_dcn_lite"], replace(VARIANTS["acwface_dcn_lite"], merge_rank=16), "merge_rank"),
        (VARIANTS["acwface_dcn_lite"], replace(VARIANTS["acwface_dcn_lite"], deform_levels=(2,)), "deformable layers it lacks"),
        (VARIANTS["retinaface"], replace(VARIANTS["acwface_dcn"], colour_order="RGB"), "colour_order"),
        (VARIANTS["retinaface"], replace(VARIANTS["acwface_dcn"], min_sizes=((16,), (64,), (256,))), "anchors_per_cell"),
    ],
)
def test_what_cannot_be_transplanted_is_refused(source: ModelConfig, target: ModelConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        transplant(build_detector(source), target)


def test_slimming_changes_no_more_than_it_says() -> None:
    with pytest.raises(UserError, match="context_fusion"):
        slim(build_detector(VARIANTS["acwface"]), VARIANTS["acwface_dcn_lite"], [])

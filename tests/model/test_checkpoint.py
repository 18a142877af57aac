import collections
import pickle

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models import resnet50

from model.checkpoint import _public_names, default_checkpoint, load_checkpoint, save_checkpoint
from model.config import VARIANTS
from model.detector import Detector, build_detector
from model.errors import UserError

# Keys as the two public repositories write them, with the shapes that their modules have: the importer's map is checked against these.
PUBLIC_ACWFACE_DCN = {
    "body.stage1.0.0.weight": (8, 3, 3, 3),
    "body.stage2.3.4.running_var": (128,),
    "wfpn.output3.0.weight": (64, 256, 1, 1),
    "wfpn.merge1.0.regular_conv.weight": (64, 64, 3, 3),
    "wfpn.merge2.0.offset_conv.bias": (18,),
    "wfpn.alpha_conv1.weight": (1, 64, 1, 1),
    "edam_backbone.2.ca.conv1d.weight": (1, 1, 5),
    "edam_wfpn.0.sa.conv.weight": (1, 2, 49, 49),
    "edam_scm.1.sa.conv.bias": (1,),
    "scm.0.conv3X3.0.regular_conv.weight": (16, 64, 3, 3),
    "scm.1.conv5X5_1.0.modulator_conv.weight": (9, 64, 3, 3),
    "scm.2.conv7x7_3.1.weight": (16,),
    "scm.2.ecm_2.0.offset_conv.weight": (18, 16, 3, 3),
    "scm.0.shuffle_conv.weight": (64, 1, 3, 3),
    "scm.0.shuffle_bn.bias": (64,),
    "ClassHead.0.conv1x1.weight": (4, 64, 1, 1),
    "LandmarkHead.2.conv1x1.bias": (20,),
}


def fresh(variant: str, seed: int) -> Detector:
    """A network with torch's own random weights, which take no time to make."""
    torch.manual_seed(seed)
    return Detector(VARIANTS[variant])


def public_state(variant: str) -> dict[str, torch.Tensor]:
    """A state dict of a variant in its public layout, every tensor random."""
    state = fresh(variant, seed=3).state_dict()
    return {public: state[own].clone() for own, public in _public_names(VARIANTS[variant]).items()}


def test_public_retinaface_weights_load(public_retinaface):
    assert public_retinaface.detector.config == VARIANTS["retinaface"]
    assert sum(parameter.numel() for parameter in public_retinaface.detector.parameters()) == 426_608


def test_public_acwface_names_and_shapes():
    state = public_state("acwface_dcn")
    assert {name: tuple(state[name].shape) for name in PUBLIC_ACWFACE_DCN} == PUBLIC_ACWFACE_DCN


def public_bifpn(state: dict[str, torch.Tensor], features: list[torch.Tensor]) -> list[torch.Tensor]:
    """BiRetina's pyramid written down from its public keys, one operation a line, for features of three strides."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, weight, bias = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    def lateral(x: torch.Tensor, name: str) -> torch.Tensor:
        return norm(functional.conv2d(x, state[f"bifpn.0.{name}.0.conv.weight"], state[f"bifpn.0.{name}.0.conv.bias"]), f"bifpn.0.{name}.1")

    def merge(cell: int, conv: str, shares: str, *maps: torch.Tensor) -> torch.Tensor:
        share = state[f"bifpn.{cell}.{shares}"].clamp(min=0)
        x = sum(value * part for value, part in zip(maps, share / (share.sum() + 1e-4), strict=True))
        x = functional.conv2d(x * x.sigmoid(), state[f"bifpn.{cell}.{conv}.depthwise_conv.conv.weight"], padding=1, groups=64)
        pointwise = f"bifpn.{cell}.{conv}.pointwise_conv.conv"
        return norm(functional.conv2d(x, state[f"{pointwise}.weight"], state[f"{pointwise}.bias"]), f"bifpn.{cell}.{conv}.bn")

    def larger(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(x, like.shape[2:], mode="nearest")

    def smaller(x: torch.Tensor) -> torch.Tensor:
        """ "Same" padding: of what is missing, the smaller half goes in front."""
        missing = [(-(-length // 2) - 1) * 2 + 3 - length for length in x.shape[2:]]
        (top, bottom), (left, right) = ((count // 2, count - count // 2) for count in missing)
        return functional.max_pool2d(functional.pad(x, (left, right, top, bottom)), 3, 2)

    in1, in2, in3 = (lateral(x, f"p{level}_down_channel") for level, x in zip((3, 4, 5), features, strict=True))
    again2, again3 = (lateral(x, f"p{level}_down_channel_2") for level, x in zip((4, 5), features[1:], strict=True))
    for cell in range(3):
        hidden = merge(cell, "conv4_up", "p4_w1", in2, larger(in3, in2))
        out1 = merge(cell, "conv3_up", "p3_w1", in1, larger(hidden, in1))
        out2 = merge(cell, "conv4_down", "p4_w2", again2, hidden, smaller(out1))
        out3 = merge(cell, "conv7_down", "p7_w2", again3, smaller(out2))
        in1, in2, in3, again2, again3 = out1, out2, out3, out2, out3
    return [in1, in2, in3]


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (90, 61)])  # even and odd maps
def test_bifpn_computes_what_the_public_keys_say(size, tmp_path):
    config = VARIANTS["biretina"]
    source = build_detector(config, seed=0)
    for cell in source.neck.cells:
        for merge in cell.children():
            torch.nn.init.normal_(merge.weights)  # some below zero
    state = {public: source.state_dict()[own] for own, public in _public_names(config).items()}
    never_read = {"conv6_up.bn.weight": 64, "conv5_down.pointwise_conv.conv.bias": 64, "p6_w1": 2, "p5_w2": 3}
    torch.save(state | {f"bifpn.1.{name}": torch.ones(count) for name, count in never_read.items()}, tmp_path / "public.pth")
    detector = load_checkpoint(tmp_path / "public.pth", "biretina").detector
    with torch.no_grad():
        features = detector.backbone(torch.randn(1, 3, *size) * 50)
        for ours, expected in zip(detector.neck(features), public_bifpn(state, features), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_resnet50_has_the_public_names():
    """RetinaFace's, and torchvision's behind ``body.``; the classifier is left out."""
    names = set(_public_names(VARIANTS["retinaface_resnet50"]).values())
    body = {f"body.{name}" for name in resnet50().state_dict() if not name.startswith("fc.")}
    rest = {"fpn.output3.0.weight", "fpn.merge2.1.running_var", "ssh1.conv5X5_1.0.weight", "BboxHead.2.conv1x1.bias"}
    assert body | rest <= names
    assert {name for name in names if name.startswith("body.")} == body


def test_the_two_layouts_number_merges_from_opposite_ends(tmp_path):
    """fpn.merge1 works on stride 8; wfpn.merge1 works on stride 16."""
    for variant, prefix, finest in (("retinaface", "fpn", "merge1"), ("retinaface_wfpn", "wfpn", "merge2")):
        state = public_state(variant)
        torch.save(state, tmp_path / "public.pth")
        neck = load_checkpoint(tmp_path / "public.pth").detector.neck
        torch.testing.assert_close(neck.merges[0][0].weight.detach(), state[f"{prefix}.{finest}.0.weight"])


@pytest.mark.parametrize("variant", [name for name, config in VARIANTS.items() if config.context != "scm_shared"])  # ours alone
def test_every_variant_survives_the_public_layout_and_ours(variant, tmp_path):
    state = public_state(variant)
    leftovers = {"body.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}  # of thop
    wrapped = {f"module.{name}": tensor for name, tensor in (state | leftovers).items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "public.pth")
    imported = load_checkpoint(tmp_path / "public.pth", variant)
    assert imported.detector.config == VARIANTS[variant]
    save_checkpoint(imported.detector, tmp_path / "ours.safetensors", imported.source)
    again = load_checkpoint(tmp_path / "ours.safetensors", variant)
    expected = fresh(variant, seed=3).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.detector.state_dict().items())
    assert again.source == imported.source


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_checkpoint(fresh("retinaface", seed=1), tmp_path / f"{name}.safetensors", "test")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_configuration_other_than_stock_travels(tmp_path):
    config = msgspec.structs.replace(VARIANTS["acwface_dcn"], offset_limit=1.0)
    save_checkpoint(Detector(config), tmp_path / "c.safetensors", "test")
    detector = load_checkpoint(tmp_path / "c.safetensors").detector
    assert detector.config == config
    assert detector.neck.merges[0][0].offset_limit == 1.0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.update({"fpn.extra.weight": torch.zeros(1)}), "unknown key 'fpn.extra.weight'"),
        (lambda s: s.pop("ssh2.conv5X5_1.0.weight"), "key 'ssh2.conv5X5_1.0.weight' of retinaface is missing"),
        (
            lambda s: s.update({"ClassHead.0.conv1x1.bias": torch.zeros(6)}),
            r"'ClassHead.0.conv1x1.bias' has shape \(6,\), retinaface needs \(4,\)",
        ),
        (lambda s: s["fpn.merge1.0.weight"].view(-1).__setitem__(5, float("nan")), "'fpn.merge1.0.weight' has a value that is not finite"),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith("body.")], "no known layout"),
        (lambda s: s.update({"edam_backbone.0.sa.conv.bias": torch.zeros(1)}), "combines modules as no variant does"),
        (lambda s: s.update({"bifpn.0.p3_w1": torch.ones(2)}), "no known layout"),
        (lambda s: s.update({"module.fpn.merge1.0.weight": torch.zeros(1)}), "with and without the prefix"),
    ],
)
def test_a_wrong_key_is_named(change, named, tmp_path):
    state = public_state("retinaface")
    change(state)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=named):
        load_checkpoint(tmp_path / "wrong.pth")


def test_another_variant_is_refused(public_weights):
    with pytest.raises(UserError, match="holds a retinaface checkpoint, not acwface"):
        load_checkpoint(public_weights, "acwface")


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    marker = tmp_path / "ran"
    torch.save(collections.OrderedDict(weight=Payload(marker)), tmp_path / "evil.pth")
    (tmp_path / "evil2.pth").write_bytes(pickle.dumps(Payload(marker)))
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(UserError, match="wants to run code"):
            load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_damaged_files(tmp_path):
    detector = fresh("retinaface", seed=0)
    save_checkpoint(detector, tmp_path / "whole.safetensors", "test")
    torch.save(detector.state_dict(), tmp_path / "whole.pth")
    for suffix in ("safetensors", "pth"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for length in (0, 1, 9, len(whole) // 2, len(whole) - 1):
            (tmp_path / f"cut.{suffix}").write_bytes(whole[:length])
            with pytest.raises(UserError, match="cut"):
                load_checkpoint(tmp_path / f"cut.{suffix}")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    for name, said in (
        ("foreign.safetensors", "no checkpoint of this project"),
        ("list.pth", "no state_dict"),
        ("numbers.pth", "no state_dict"),
    ):
        with pytest.raises(UserError, match=said):
            load_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.pth")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_checkpoint(fresh("retinaface", seed=0), path, "old")
    before = path.read_bytes()

    def full_disk(state, filename, metadata):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(fresh("retinaface", seed=1), path, "new")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.safetensors"]


def test_default_weights_say_what_they_are():
    assert default_checkpoint("retinaface_wfpn").source == "untrained: random weights, seed 0"  # none are shipped
    with pytest.raises(UserError, match="unknown variant 'yolo'"):
        default_checkpoint("yolo")


def test_convert_command(cli, public_weights, tmp_path):
    out = tmp_path / "ours.safetensors"
    code, said, _ = cli("model", "convert", public_weights, "--out", out)
    assert code == 0
    assert "retinaface" in said
    assert load_checkpoint(out).detector.config.variant == "retinaface"
    assert cli("model", "convert", public_weights, "--out", tmp_path / "ours.bin")[0] == 2

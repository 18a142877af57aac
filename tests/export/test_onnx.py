"""Exported models, run by ONNX Runtime on real photographs, against torch."""

import msgspec
import numpy as np
import onnx
import pytest
import torch

from export.onnx_export import LIMITS, export_onnx
from export.parity import measure_parity, require_parity
from model.artifact import Parity, open_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.runtimes.torch import TorchRuntime
from runtime_bench.samples import PORTRAIT, sample_photographs
from runtime_bench.widerface import EVALUATION
from tests.conftest import error_line


def seeded(variant: str) -> Checkpoint:
    """Untrained weights with offsets that matter, whatever the project ships."""
    return Checkpoint(build_detector(VARIANTS[variant], seed=0), "untrained")


def quietly(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def dcn_artifact(tmp_path_factory):
    """acwface_dcn with random offsets, one size."""
    path = tmp_path_factory.mktemp("dcn") / "artifact"
    export_onnx(seeded("acwface_dcn"), "native", (256, 320), path, quietly)
    return open_artifact(path)


def assert_same_detections(ours, theirs):
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=2e-3)
    np.testing.assert_allclose(ours.landmarks, theirs.landmarks, atol=2e-3)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_deformable_network_is_exported_natively_with_offsets_in_use(dcn_artifact):
    parity = dcn_artifact.manifest.parity
    assert parity.scores < LIMITS.scores
    assert max(parity.boxes_px, parity.landmarks_px) < LIMITS.pixels
    assert parity.anchors > 1000
    operators = [node.op_type for node in onnx.load(dcn_artifact.model_path).graph.node]
    assert operators.count("DeformConv") == 21 + 2 * 4  # the two of the neck in four parts each
    # Without its offsets the network computes something else: the comparison above could have failed.
    checkpoint = load_checkpoint(dcn_artifact.reference_path)
    with torch.no_grad():
        for name, parameter in checkpoint.detector.named_parameters():
            if ".offset_conv." in name:
                parameter.zero_()
    still = measure_parity(torch_detector(checkpoint, (256, 320)), artifact_detector(dcn_artifact, 1), sample_photographs()[:1])
    assert still.scores > 100 * LIMITS.scores
    with pytest.raises(UserError, match="differs from torch"):
        require_parity(still, LIMITS.scores, LIMITS.pixels)


def test_a_limit_on_offsets_is_part_of_the_export(tmp_path):
    config = msgspec.structs.replace(VARIANTS["acwface_dcn"], offset_limit=0.5)
    export_onnx(Checkpoint(build_detector(config, seed=0), "test"), "native", (64, 64), tmp_path / "a", quietly)
    assert [node.op_type for node in onnx.load(tmp_path / "a" / "model.onnx").graph.node].count("Clip") == 23


def test_the_graph_is_static_named_and_carries_no_paths(dcn_artifact):
    model = onnx.load(dcn_artifact.model_path)
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.input
    assert image.name == dcn_artifact.manifest.input.name
    assert [axis.dim_value for axis in image.type.tensor_type.shape.dim] == [1, 3, 256, 320]
    for declared, value in zip(dcn_artifact.manifest.outputs, model.graph.output, strict=True):
        assert declared.name == value.name
        assert tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) == declared.shape
    assert model.opset_import[0].version == 19
    assert b".py" not in dcn_artifact.model_path.read_bytes()


def test_real_weights_give_the_same_faces_at_any_size(public_retinaface, tmp_path):
    export_onnx(public_retinaface, "none", None, tmp_path / "a", quietly)
    exported, reference = artifact_detector(open_artifact(tmp_path / "a"), 1), torch_detector(public_retinaface, None)
    portrait = load_image(PORTRAIT)
    for photograph in (portrait, portrait[3:334, 40:471], portrait[::4, ::4]):
        found = exported.detect(photograph, EVALUATION)[0]
        assert_same_detections(found, reference.detect(photograph, EVALUATION)[0])
        assert found.scores[0] > 0.9
    assert exported.runtime.run(np.zeros((1, 3, 1, 1), np.float32)).scores.shape == (6,)


def test_attention_of_rows_and_columns_at_any_size(tmp_path):
    config = msgspec.structs.replace(VARIANTS["retinaface"], attention="edam", attention_rank=2)
    assert export_onnx(Checkpoint(build_detector(config, seed=0), "test"), "none", None, tmp_path / "a", quietly).scores < LIMITS.scores
    assert artifact_detector(open_artifact(tmp_path / "a"), 1).runtime.run(np.zeros((1, 3, 33, 70), np.float32)).scores.shape == (132,)


@pytest.mark.parametrize(
    "variant", ["retinaface_wfpn", "retinaface_wfpn_scm", "acwface", "acwface_dcn_lite", "biretina", "retinaface_mobilenetv2"]
)
def test_every_other_variant(variant, tmp_path):
    route = "native" if VARIANTS[variant].deform else "none"
    parity = export_onnx(seeded(variant), route, (96, 128), tmp_path / "a", quietly)
    assert parity.scores < LIMITS.scores
    assert open_artifact(tmp_path / "a").manifest.weights == "untrained"


def test_a_model_that_differs_is_not_written(tmp_path, monkeypatch):
    run = TorchRuntime.run
    monkeypatch.setattr(
        TorchRuntime, "run", lambda self, tensor: run(self, tensor)._replace(scores=run(self, tensor).scores + np.float32(2e-4))
    )
    with pytest.raises(UserError, match="differs from torch by 2.0.e-04 on scores, limit 1e-04; nothing was written"):
        export_onnx(seeded("retinaface"), "none", (64, 64), tmp_path / "a", quietly)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [Parity(float("nan"), 0, 0, 1, 1), Parity(0, 2e-3, 0, 1, 1), Parity(0, 0, float("inf"), 1, 1)])
def test_parity_limits(wrong):
    with pytest.raises(UserError, match="differs from torch"):
        require_parity(wrong, LIMITS.scores, LIMITS.pixels)


def test_command_line(cli, tmp_path, public_weights):
    out = tmp_path / "with space é"
    code, said, progress = cli("export", "onnx", "--checkpoint", public_weights, "--size", 64, 96, "--out", out)
    assert code == 0
    assert str(out) in said
    assert progress.splitlines()[0] == "retinaface: imported from retinaface_mobilenet025_final.pth"
    assert open_artifact(out).manifest.input.size == (64, 96)
    assert "retinaface" in (out / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", 8), "--size 8: one or two numbers from 32 to 4096"),
        (("--size", 64, 64, 64), "one or two numbers"),
        (("--checkpoint", "absent.pth"), "no such checkpoint: absent.pth"),
    ],
)
def test_bad_arguments(cli, tmp_path, arguments, said):
    code, _, error = cli("export", "onnx", *arguments, "--out", tmp_path / "a")
    assert code == 2
    assert said in error_line(error)
    assert not (tmp_path / "a").exists()


def test_unknown_names_are_refused_with_the_known_ones(cli):
    for arguments, known in ((("--variant", "yolo"), "acwface_dcn"), (("--dcn", "magic"), "native"), (("--size", "x"), "invalid int")):
        code, _, error = cli("export", "onnx", *arguments)
        assert code == 2
        assert known in error_line(error)

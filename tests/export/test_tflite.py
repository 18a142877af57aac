"""TFLite files, run by LiteRT on real photographs, against torch."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torchvision.ops import deform_conv2d

from export.explain import left_by_gpu
from export.tflite_export import LIMITS, export_tflite
from export.tflite_model import read_model, schema, write_model
from export.tflite_routes import TFLITE_ROUTES
from model.artifact import open_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.runtimes.litert import LiteRtRuntime, open_interpreter
from runtime_bench.samples import PORTRAIT
from runtime_bench.tflite_graph import Node, read_nodes
from runtime_bench.widerface import EVALUATION
from tests.conftest import error_line

# Two deformable layers, of 23: torch.onnx takes a minute for all of them.
NECK = msgspec.structs.replace(VARIANTS["acwface_dcn"], deform=("neck",), attention="none", offset_limit=1.0)


def quietly(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def tflite_artifact(public_retinaface, tmp_path_factory):
    """The public RetinaFace at a size that is no multiple of 32."""
    path = tmp_path_factory.mktemp("tflite") / "artifact"
    export_tflite(public_retinaface, "none", "fp32", (100, 180), path, quietly)
    return open_artifact(path)


def test_real_weights_give_the_same_faces_with_and_without_xnnpack(public_retinaface, tflite_artifact):
    parity = tflite_artifact.manifest.parity
    assert parity.scores < LIMITS["fp32"].scores
    assert parity.anchors > 50
    portrait = load_image(PORTRAIT)
    reference = torch_detector(public_retinaface, (100, 180)).detect(portrait, EVALUATION)[0]
    exported = artifact_detector(tflite_artifact, 1)
    for xnnpack in (True, False):
        detections = replace(exported, runtime=LiteRtRuntime(tflite_artifact, 1, xnnpack)).detect(portrait, EVALUATION)[0]
        assert len(detections) == len(reference) > 0
        np.testing.assert_allclose(detections.boxes, reference.boxes, atol=5e-3)
        np.testing.assert_allclose(detections.scores, reference.scores, atol=1e-4)
    delegated = [node.partition is not None for node in read_nodes(open_interpreter(tflite_artifact, 1, True))]
    assert any(delegated)
    assert not any(node.partition is not None for node in read_nodes(open_interpreter(tflite_artifact, 1, False)))


def test_names_order_and_layout_are_the_documented_ones(tflite_artifact):
    interpreter = Interpreter(str(tflite_artifact.model_path))
    (image,) = interpreter.get_input_details()
    assert (image["name"], tuple(image["shape"]), image["dtype"]) == ("image", (1, 100, 180, 3), np.float32)
    declared = tflite_artifact.manifest
    assert (declared.input.layout, declared.input.shape) == ("NHWC", (1, 100, 180, 3))
    assert [(output["name"], tuple(output["shape"])) for output in interpreter.get_output_details()] == [
        (output.name, output.shape) for output in declared.outputs
    ]
    assert set(interpreter.get_signature_list()["serving_default"]["outputs"]) == {"scores", "box_deltas", "landmark_deltas"}


def test_half_precision_is_for_storage_only(public_retinaface, tflite_artifact, tmp_path):
    parity = export_tflite(public_retinaface, "none", "fp16", (100, 180), tmp_path / "a", quietly)
    half = open_artifact(tmp_path / "a")
    assert 1e-5 < parity.scores < LIMITS["fp16"].scores
    assert half.manifest.model.size_bytes < 0.6 * tflite_artifact.manifest.model.size_bytes
    # All convolutions still run in XNNPACK, and nothing allows it to compute in half precision.
    assert not [node.op for node in read_nodes(open_interpreter(half, 1, True)) if node.macs is not None and node.partition is None]
    for artifact in (half, tflite_artifact):
        assert not any(b"reduced_precision" in entry.name for entry in read_model(artifact.model_path).metadata or [])


@pytest.mark.parametrize("dcn", TFLITE_ROUTES)
def test_deformable_layers(dcn, tmp_path):
    checkpoint = Checkpoint(build_detector(NECK, seed=0), "test")
    parity = export_tflite(checkpoint, dcn, "fp32", (96, 64), tmp_path / "a", quietly)
    assert parity.scores < LIMITS["fp32"].scores
    interpreter = open_interpreter(open_artifact(tmp_path / "a"), 1, True)
    operators = [node.op for node in read_nodes(interpreter)]
    # Nothing that the GPU delegate lacks, no shape that is only known when it runs, no guard before a gather.
    assert not {"GATHER_ND", "SHAPE", "SELECT", "SELECT_V2", "LESS"} & set(operators)
    assert operators.count("GATHER") == (8 if dcn == "decomposed" else 0)
    assert left_by_gpu(read_nodes(interpreter)) == []
    assert all(-1 not in tensor["shape_signature"] for tensor in interpreter.get_tensor_details())


@pytest.mark.parametrize(("channels", "outputs"), [(8, 3), (4, 6)])
@pytest.mark.parametrize("limit", [None, 1.0, 1.5])
def test_every_form_of_a_layer_is_torchvisions_operator(channels, outputs, limit):
    x, weight, bias = torch.randn(1, channels, 9, 7), torch.randn(outputs, channels, 3, 3), torch.randn(outputs)
    offset, modulator = 3 * torch.randn(1, 18, 9, 7), torch.randn(1, 9, 9, 7)
    offset[0, :2, 0, :4] = torch.tensor([1e6, -1e6, 0.0, -1.0])
    bounded = offset if limit is None else offset.clamp(-limit, limit)
    expected = torch.nn.functional.leaky_relu(
        deform_conv2d(x.double(), bounded.double(), weight.double(), bias.double(), padding=1, mask=2 * modulator.double().sigmoid()), 0.1
    )
    for name, route in TFLITE_ROUTES.items():
        if name == "bounded" and limit is None:
            continue
        for form in (route.mixed, route.direct):
            for predicted in ([torch.cat([offset, modulator], dim=1)], [offset, modulator]):
                out = form(x, predicted, weight, bias, limit, 0.1)
                torch.testing.assert_close(out.double(), expected, atol=2e-4, rtol=1e-4)


def test_explain(cli, tflite_artifact, tmp_path):
    code, said, _ = cli("export", "explain", tflite_artifact.path)
    assert code == 0
    nodes = read_nodes(open_interpreter(tflite_artifact, 1, True))
    assert f"{len(nodes)} operators" in said
    left = [node.op for node in nodes if node.partition is None]
    assert 2 <= left.count("RESIZE_NEAREST_NEIGHBOR") <= len(left) < 10
    assert f"XNNPACK takes {len(nodes) - len(left)} of them" in said
    assert "RESIZE_NEAREST_NEIGHBOR" in said.partition("left:")[2]
    assert "by its published list, takes all of them" in said
    flat = Node(0, "GATHER", "g", ((9, 4), (7,)), ((7, 4),), None)
    cube = flat._replace(inputs=((9, 4), (7, 2)))
    assert left_by_gpu([flat]) == []
    (row,) = left_by_gpu([flat, cube, cube])
    assert (row.op, row.count, row.reason) == ("GATHER", 2, "indices of 2 axes; the list has 1")
    assert [row.reason for row in left_by_gpu([flat._replace(op="GATHER_ND")])] == ["not on the list"]
    code, _, error = cli("export", "explain", tmp_path)
    assert code == 2
    assert "is no artifact" in error_line(error)


def test_bounded_needs_a_limit(tmp_path):
    for limit, said in ((None, "no limit on its offsets"), (3.0, "offsets of up to 3 pixels")):
        config = msgspec.structs.replace(NECK, offset_limit=limit)
        with pytest.raises(UserError, match=said):
            export_tflite(Checkpoint(build_detector(config, seed=0), "test"), "bounded", "fp32", (64, 64), tmp_path / "a", quietly)
    assert not list(tmp_path.iterdir())


def test_a_model_that_differs_without_xnnpack_is_not_written(public_retinaface, tmp_path, monkeypatch):
    run = LiteRtRuntime.run

    def slightly_off(self, tensor):
        outputs = run(self, tensor)
        return outputs if self.xnnpack else outputs._replace(scores=outputs.scores + np.float32(2e-4))

    monkeypatch.setattr(LiteRtRuntime, "run", slightly_off)
    with pytest.raises(UserError, match="differs from torch by 2.0.e-04 on scores"):
        export_tflite(public_retinaface, "none", "fp32", (64, 64), tmp_path / "a", quietly)
    assert not list(tmp_path.iterdir())


def test_a_converter_that_fails_names_its_log(public_retinaface, tmp_path, monkeypatch):
    monkeypatch.setattr("export.tflite_export.sys.executable", "false")
    with pytest.raises(UserError, match=r"onnx2tf cannot convert retinaface; the converter's log is (.+\.log)"):
        export_tflite(public_retinaface, "none", "fp32", (64, 64), tmp_path / "a", quietly)


def test_models_survive_reading_and_writing(tflite_artifact, tmp_path):
    model = read_model(tflite_artifact.model_path)
    write_model(model, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == tflite_artifact.model_path.read_bytes()
    assert isinstance(model, schema.ModelT)


def test_command_line(cli, tmp_path, public_weights):
    code, said, progress = cli(
        "export", "tflite", "--checkpoint", public_weights, "--precision", "fp16", "--size", 64, 96, "--out", tmp_path / "a"
    )
    assert code == 0
    assert "differs from torch by" in said
    assert "comparing with torch" in progress
    artifact = open_artifact(tmp_path / "a")
    assert (artifact.manifest.format, artifact.manifest.precision, artifact.manifest.input.size) == ("tflite", "fp16", (64, 96))
    assert load_checkpoint(artifact.reference_path).source == "imported from retinaface_mobilenet025_final.pth"
    for arguments, known in ((("--dcn", "native"), "decomposed"), (("--size", 16), "--size 16"), (("--precision", "int4"), "fp16")):
        code, _, error = cli("export", "tflite", *arguments)
        assert code == 2
        assert known in error_line(error)

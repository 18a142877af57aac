"""TFLite files, run by LiteRT on real photographs, against torch."""

import sys
from collections import Counter
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from flatbuffers.number_types import Float32Flags
from flatbuffers.table import Table
from torchvision.ops import deform_conv2d

from export.explain import left_by_gpu
from export.kernel import LIBRARIES
from export.tflite_export import LIMITS, export_tflite
from export.tflite_metadata import IDENTIFIER, METADATA
from export.tflite_model import read_model, schema, write_model
from export.tflite_routes import TFLITE_ROUTES
from model.artifact import open_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.runtimes import libraries
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
    """The public RetinaFace."""
    path = tmp_path_factory.mktemp("tflite") / "artifact"
    export_tflite(public_retinaface, "none", "fp32", (96, 192), path, quietly)
    return open_artifact(path)


def test_real_weights_give_the_same_faces_with_and_without_xnnpack(public_retinaface, tflite_artifact):
    parity = tflite_artifact.manifest.parity
    assert parity.scores < LIMITS["fp32"].scores
    assert parity.anchors > 50
    portrait = load_image(PORTRAIT)
    reference = torch_detector(public_retinaface, (96, 192)).detect(portrait, EVALUATION)[0]
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
    assert (image["name"], tuple(image["shape"]), image["dtype"]) == ("image", (1, 96, 192, 3), np.float32)
    declared = tflite_artifact.manifest
    assert (declared.input.layout, declared.input.shape) == ("NHWC", (1, 96, 192, 3))
    assert [(output["name"], tuple(output["shape"])) for output in interpreter.get_output_details()] == [
        (output.name, output.shape) for output in declared.outputs
    ]
    assert set(interpreter.get_signature_list()["serving_default"]["outputs"]) == {"scores", "box_deltas", "landmark_deltas"}


def test_half_precision_is_for_storage_only(public_retinaface, tflite_artifact, tmp_path):
    parity = export_tflite(public_retinaface, "none", "fp16", (96, 192), tmp_path / "a", quietly)
    half = open_artifact(tmp_path / "a")
    assert 1e-5 < parity.scores < LIMITS["fp16"].scores
    assert half.manifest.model.size_bytes < 0.6 * tflite_artifact.manifest.model.size_bytes
    # All convolutions still run in XNNPACK, and nothing allows it to compute in half precision.
    assert not [node.op for node in read_nodes(open_interpreter(half, 1, True)) if node.macs is not None and node.partition is None]
    for artifact in (half, tflite_artifact):
        assert not any(b"reduced_precision" in entry.name for entry in read_model(artifact.model_path).metadata or [])


@pytest.fixture(scope="module")
def deformable(tmp_path_factory):
    """Makes, once, the artifact of a route with two deformable layers and one attention map."""
    folder = tmp_path_factory.mktemp("deformable")

    @cache
    def make(dcn, precision="fp32"):
        if dcn == "custom" and not (libraries.NATIVE / libraries.host()).is_dir():
            pytest.skip("the delegate has not been built: make native")
        export_tflite(Checkpoint(build_detector(NECK, seed=0), "test"), dcn, precision, (96, 64), folder / f"{dcn}-{precision}", quietly)
        return open_artifact(folder / f"{dcn}-{precision}")

    return make


@pytest.mark.parametrize("dcn", TFLITE_ROUTES)
def test_deformable_layers(dcn, deformable):
    artifact = deformable(dcn)
    assert artifact.manifest.parity.scores < LIMITS["fp32"].scores
    interpreter = open_interpreter(artifact, 1, True)
    nodes = read_nodes(interpreter)
    operators = Counter(node.op for node in nodes)
    # No shape that is only known when it runs, no guard before a gather.
    assert not {"SHAPE", "FILL"} & operators.keys()
    assert all(-1 not in tensor["shape_signature"] for tensor in interpreter.get_tensor_details())
    if dcn == "grid-sample":  # a yardstick
        return
    assert not {"GATHER_ND", "SELECT", "SELECT_V2", "LESS"} & operators.keys()
    assert operators["GATHER"] == (8 if dcn == "decomposed" else 0)
    assert operators["DeformConvTiled"] == (2 if dcn == "custom" else 0)
    assert [left.op for left in left_by_gpu(nodes)] == (["DeformConvTiled"] if dcn == "custom" else [])


def test_custom_operators_without_their_delegate(deformable):
    artifact = deformable("custom")
    assert artifact.manifest.runtime.library == LIBRARIES["litert"]
    with pytest.raises(RuntimeError, match="DeformConvTiled"):
        Interpreter(str(artifact.model_path)).allocate_tensors()


def test_custom_operators_in_half_precision(deformable):
    full, half = deformable("custom"), deformable("custom", "fp16")
    assert full.manifest.parity.scores < half.manifest.parity.scores < LIMITS["fp16"].scores


def test_a_converter_that_breaks_a_stand_in_is_found_out(deformable, monkeypatch):
    deformable("custom")  # or skips
    monkeypatch.setattr("export.tflite_routes.STAND_IN", 1.0)  # so that nothing is recognised
    with pytest.raises(UserError, match="differs from torch"):
        deformable.__wrapped__("custom")


def test_metadata_reads_back(tflite_artifact):
    model = read_model(tflite_artifact.model_path)
    (entry,) = [entry for entry in model.metadata if entry.name == METADATA.encode()]
    content = bytes(model.buffers[entry.buffer].data)
    assert content[4:8] == IDENTIFIER

    def field(table, number, read):
        return read(table, table.Offset(4 + 2 * number))

    def text(table, place):
        return table.String(place + table.Pos).decode()

    def elements(table, place):
        first = table.Vector(place)
        return [Table(table.Bytes, table.Indirect(first + 4 * index)) for index in range(table.VectorLen(place))]

    def floats(table, place):
        return [table.Get(Float32Flags, table.Vector(place) + 4 * index) for index in range(table.VectorLen(place))]

    root = Table(content, int.from_bytes(content[:4], "little"))
    assert field(root, 0, text) == "retinaface-none-fp32-96x192-tflite"
    assert field(root, 2, text) == f"weights {tflite_artifact.manifest.reference.sha256[:12]}"
    (graph,) = field(root, 3, elements)
    (image,) = field(graph, 2, elements)
    assert "BGR" in field(image, 1, text)
    (unit,) = field(image, 4, elements)
    normalization = Table(content, unit.Indirect(unit.Offset(6) + unit.Pos))
    assert field(normalization, 0, floats) == [104.0, 117.0, 123.0]
    assert [field(output, 0, text) for output in field(graph, 3, elements)] == [output.name for output in tflite_artifact.manifest.outputs]


def test_tensorflows_own_interpreter_agrees(tflite_artifact):
    tensorflow = pytest.importorskip("tensorflow", reason="not installed: pip install tensorflow==2.21.0, the project's extra of that name")
    detector = artifact_detector(tflite_artifact, 1)
    interpreter = tensorflow.lite.Interpreter(str(tflite_artifact.model_path))
    run = interpreter.get_signature_runner()
    tensor = np.random.default_rng(0).uniform(-120, 150, (1, 3, 96, 192)).astype(np.float32)
    outputs = run(image=tensor.transpose(0, 2, 3, 1))
    for name, values in detector.runtime.run(tensor)._asdict().items():
        np.testing.assert_allclose(outputs[name][0], values, atol=1e-4)


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


def test_attention_on_maps_that_blocks_do_not_fill(tmp_path):
    """3x5 cells on the coarsest level."""
    config = msgspec.structs.replace(VARIANTS["acwface"], context="ssh", context_fusion="none")
    parity = export_tflite(Checkpoint(build_detector(config, seed=0), "test"), "none", "fp32", (96, 160), tmp_path / "a", quietly)
    assert parity.scores < LIMITS["fp32"].scores


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


def test_a_platform_without_the_converter(cli, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "export.tflite_export", None)  # as if a package that it imports were missing
    monkeypatch.setattr("model.cli._ROOMS", ())
    code, _, error = cli("export", "tflite", "--size", 64, "--out", tmp_path / "a")
    assert code == 2
    assert "is not installed, or there is none for" in error_line(error)
    assert not list(tmp_path.iterdir())


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
    for arguments, known in (
        (("--dcn", "native"), "decomposed"),
        (("--size", 16), "--size 16"),
        (("--size", 100, 200), "try --size 96 192"),
        (("--precision", "int4"), "fp16"),
        (("--no-rewrite", "pool-channels"), "split-attention"),  # one that this format does not have
    ):
        code, _, error = cli("export", "tflite", *arguments)
        assert code == 2
        assert known in error_line(error)

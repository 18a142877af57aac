"""Core ML files, evaluated as they were saved, against torch. Core ML itself runs on macOS only."""

import shutil
import sys
import warnings

import coremltools
import msgspec
import numpy as np
import pytest
import torch
from coremltools.proto import MIL_pb2, Model_pb2
from torch import nn
from torchvision.ops import deform_conv2d

from export import coreml_export
from export.coreml_export import LIMITS, export_coreml
from export.coreml_routes import COREML_ROUTES
from export.parity import measure_parity, require_parity
from export.rewrites.deform import DeployDeformConv
from model.artifact import open_artifact
from model.checkpoint import Checkpoint, default_checkpoint
from model.config import VARIANTS
from model.deform_conv import DeformConv2d
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image, prepare
from runtime_bench.coreml_layers import Network
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.mil import Program, _resample
from runtime_bench.record import read_results
from runtime_bench.runtimes.coreml import picture
from runtime_bench.samples import PORTRAIT, sample_photographs
from runtime_bench.widerface import EVALUATION
from tests.conftest import error_line

SIZE = (128, 160)
SPECIFICATION, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"
NECK = msgspec.structs.replace(VARIANTS["acwface_dcn"], deform=("neck",), attention="none", offset_limit=1.0)


def quietly(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def coreml_artifact(tmp_path_factory):
    """The project's own RetinaFace weights."""
    path = tmp_path_factory.mktemp("coreml") / "artifact"
    export_coreml(default_checkpoint("retinaface"), "none", "fp32", SIZE, path, quietly)
    return open_artifact(path)


@pytest.fixture
def copied(coreml_artifact, tmp_path):
    """A package to be damaged."""
    return shutil.copytree(coreml_artifact.model_path, tmp_path / "model.mlpackage")


def change(package, edit):
    spec = Model_pb2.Model.FromString((package / SPECIFICATION).read_bytes())
    edit(spec)
    (package / SPECIFICATION).write_bytes(spec.SerializeToString())


def operations(spec):
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def evaluated(module, photo, folder):
    """What the evaluator makes of a module of ``(1, 3, H, W)`` values from 0 to 255, RGB, that Core ML's converter has converted."""
    shape = (1, 3, *photo.shape[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of names
        converted = coremltools.convert(
            torch.jit.trace(module.eval(), torch.zeros(shape)),
            inputs=[coremltools.ImageType(name="image", shape=shape, color_layout="RGB")],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
    converted.save(str(folder / "m.mlpackage"))
    program = Program(folder / "m.mlpackage")
    return program.operators, [torch.from_numpy(values) for values in program(photo).values()]


def test_real_weights_give_the_same_faces(coreml_artifact):
    parity = coreml_artifact.manifest.parity
    assert parity.scores < LIMITS["fp32"].scores
    assert parity.anchors > 50
    portrait = load_image(PORTRAIT)
    reference = torch_detector(default_checkpoint("retinaface"), SIZE).detect(portrait, EVALUATION)[0]
    detections = artifact_detector(coreml_artifact, 1).detect(portrait, EVALUATION)[0]
    assert len(detections) == len(reference) > 0
    np.testing.assert_allclose(detections.boxes, reference.boxes, atol=5e-3)
    np.testing.assert_allclose(detections.scores, reference.scores, atol=1e-4)


def test_what_the_file_says_of_itself(coreml_artifact):
    description = Program(coreml_artifact.model_path).description
    (image,) = description.input
    assert (image.name, image.type.imageType.height, image.type.imageType.width) == ("image", *SIZE)
    assert image.type.imageType.colorSpace == image.type.imageType.BGR
    declared = coreml_artifact.manifest
    assert [(output.name, tuple(output.type.multiArrayType.shape)) for output in description.output] == [
        (output.name, output.shape) for output in declared.outputs
    ]
    assert all(feature.shortDescription for feature in (image, *description.output))
    metadata = description.metadata
    assert all((metadata.shortDescription, metadata.author, metadata.license, metadata.versionString))
    assert (declared.input.dtype, declared.input.colour_order, declared.input.mean) == ("image", "BGR", (104.0, 117.0, 123.0))
    assert (declared.runtime.name, declared.runtime.minimum_version) == ("coreml", "16")
    spec = Model_pb2.Model.FromString((coreml_artifact.model_path / SPECIFICATION).read_bytes())
    assert spec.specificationVersion == coremltools._SPECIFICATION_VERSION_IOS_16


def test_half_precision(coreml_artifact, tmp_path):
    parity = export_coreml(default_checkpoint("retinaface"), "none", "fp16", SIZE, tmp_path / "a", quietly)
    half = open_artifact(tmp_path / "a")
    assert 1e-5 < parity.scores < LIMITS["fp16"].scores
    assert half.manifest.model.size_bytes < 0.6 * coreml_artifact.manifest.model.size_bytes
    spec = Model_pb2.Model.FromString((half.model_path / SPECIFICATION).read_bytes())
    arithmetic = [operation for operation in operations(spec) if operation.type not in ("const", "cast")]
    wide = [operation for operation in arithmetic if operation.outputs[0].type.tensorType.dataType != MIL_pb2.FLOAT16]
    assert [operation.type for operation in wide] == ["mul", "add", *["conv", "leaky_relu"] * 3]  # up to the first stride but one


def test_the_shipped_deformable_network(tmp_path):
    parity = export_coreml(default_checkpoint("acwface_dcn"), "decomposed", "fp32", (96, 64), tmp_path / "a", quietly)
    assert parity.scores < LIMITS["fp32"].scores
    program = Program(open_artifact(tmp_path / "a").model_path)
    assert program.operators.count("resample") == 23
    assert not {"gather", "gather_along_axis", "gather_nd", "matmul"} & set(program.operators)


def test_bounded(tmp_path):
    checkpoint = Checkpoint(build_detector(NECK, seed=0), "test")
    parity = export_coreml(checkpoint, "bounded", "fp32", (96, 64), tmp_path / "a", quietly)
    assert parity.scores < LIMITS["fp32"].scores
    assert "resample" not in Program(open_artifact(tmp_path / "a").model_path).operators
    for limit, said in ((None, "no limit on its offsets"), (3.0, "offsets of up to 3 pixels")):
        config = msgspec.structs.replace(NECK, offset_limit=limit)
        with pytest.raises(UserError, match=said):
            export_coreml(Checkpoint(build_detector(config, seed=0), "test"), "bounded", "fp32", (64, 64), tmp_path / "b", quietly)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_custom_layers(precision, tmp_path):
    parity = export_coreml(Checkpoint(build_detector(NECK, seed=0), "test"), "custom", precision, (96, 64), tmp_path / "a", quietly)
    assert parity.scores < LIMITS[precision].scores
    artifact = open_artifact(tmp_path / "a")
    assert artifact.manifest.runtime.library == coreml_export.LAYER
    assert Network(artifact.model_path).layers.count("custom") == 2
    with pytest.raises(UserError, match="is no ML Program but neuralNetwork"):
        Program(artifact.model_path)

    def rename(spec):
        next(layer for layer in spec.neuralNetwork.layers if layer.WhichOneof("layer") == "custom").custom.className = "Other"

    def replace(spec):
        spec.neuralNetwork.layers[3].softmax.SetInParent()

    for damage, said in ((rename, "custom layer Other is not known"), (replace, "layer softmax is not known")):
        change(artifact.model_path, damage)
        with pytest.raises(UserError, match=said):
            Network(artifact.model_path)(np.zeros((96, 64, 3), np.uint8))


@pytest.mark.parametrize(("channels", "outputs"), [(8, 3), (4, 6)])
@pytest.mark.parametrize("limit", [None, 1.0, 1.5])
def test_every_form_of_a_layer_is_torchvisions_operator(channels, outputs, limit):
    x, weight, bias = torch.randn(1, channels, 9, 7), torch.randn(outputs, channels, 3, 3), torch.randn(outputs)
    offset, modulator = 3 * torch.randn(1, 18, 9, 7), torch.randn(1, 9, 9, 7)
    offset[0, :2, 0, :4] = torch.tensor([1e6, -1e6, 0.0, -1.0])
    bounded = offset if limit is None else offset.clamp(-limit, limit)
    expected = nn.functional.leaky_relu(
        deform_conv2d(x.double(), bounded.double(), weight.double(), bias.double(), padding=1, mask=2 * modulator.double().sigmoid()), 0.1
    )
    for name, route in COREML_ROUTES.items():
        if name == "bounded" and limit is None:
            continue
        for form in (route.mixed, route.direct):
            for predicted in ([torch.cat([offset, modulator], dim=1)], [offset, modulator]):
                out = form(x, predicted, weight, bias, limit, 0.1)
                torch.testing.assert_close(out.double(), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("route", "mixed"), [("decomposed", True), ("decomposed", False), ("bounded", True)])
def test_a_layer_through_the_converter(route, mixed, tmp_path):
    layer = DeformConv2d(3, 5)
    layer.offset_limit = 1.5 if route == "bounded" else None
    for conv in (layer.offset_conv, layer.modulator_conv):
        nn.init.normal_(conv.weight, std=3e-3)
        nn.init.normal_(conv.bias)
    deployed = DeployDeformConv(layer, COREML_ROUTES[route])
    deployed.mixed = mixed
    photo = load_image(PORTRAIT)[100:132, 200:243]
    _, (out,) = evaluated(deployed, photo, tmp_path)
    with torch.no_grad():
        image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
        assert 2 < layer.offset_conv(image).abs().max() < 20
        torch.testing.assert_close(out, layer(image), atol=5e-3, rtol=1e-4)


class Operators(nn.Module):
    """What our networks are made of, with and without rewrites."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=(0, 2), dilation=2, groups=3))
        self.line = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, image):
        x = nn.functional.leaky_relu(self.convs(image / 255.0), 0.1)
        up = nn.functional.interpolate(x, scale_factor=2, mode="nearest") - 0.5
        pooled = torch.cat([up.amax(dim=1, keepdim=True), up.mean(dim=1, keepdim=True)], dim=1)
        channels = torch.sigmoid(self.line(up.mean((2, 3)).unsqueeze(1))).transpose(1, 2).unsqueeze(-1)
        first, second = nn.functional.pad(up, (2, 1, 0, 3)).split((2, 4), dim=1)
        rows = nn.functional.relu(second[:, 1:, 2:-1, ::2]).flatten(2)
        product = torch.ones(1, 3) @ rows.clamp(-0.2, 0.3).abs()
        return pooled, up * channels, first.permute(0, 2, 3, 1).softmax(dim=-1)[..., 1], product


def test_operators(tmp_path):
    module = Operators()
    photo = load_image(PORTRAIT)[100:140, 200:248]
    operators, outputs = evaluated(module, photo, tmp_path)
    assert {"conv", "slice_by_index", "pad", "softmax", "split", "upsample_nearest_neighbor", "reduce_max", "clip"} <= set(operators)
    with torch.no_grad():
        expected = module(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float())
    for output, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)


def test_resampling_is_torchs():
    x = torch.randn(3, 2, 5, 4)
    points = 1.5 * torch.randn(3, 6, 7, 2)
    points[0, 0, 0] = torch.tensor([1e9, -float("inf")])
    modes = ("bilinear", "constant", torch.tensor(0.0), "normalized_minus_one_to_one")
    expected = nn.functional.grid_sample(x, points.clamp(-1e6, 1e6), "bilinear", "zeros", align_corners=False)
    torch.testing.assert_close(_resample(x, points, *modes, torch.tensor(False)), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="True is not known"):
        _resample(x, points, *modes, torch.tensor(True))


def test_a_changed_program_is_not_taken_for_the_network(coreml_artifact, tmp_path):
    path = shutil.copytree(coreml_artifact.path, tmp_path / "a")

    def steeper(spec):
        (slope, *_) = (
            value for operation in operations(spec) if operation.type == "leaky_relu" for value in operation.inputs["alpha"].arguments
        )
        (constant,) = (operation for operation in operations(spec) if operation.outputs[0].name == slope.name)
        constant.attributes["val"].immediateValue.tensor.floats.values[0] = 0.101

    change(path / "model.mlpackage", steeper)
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_artifact(path)
    changed = artifact_detector(msgspec.structs.replace(coreml_artifact, path=path), 1)
    parity = measure_parity(torch_detector(default_checkpoint("retinaface"), SIZE), changed, sample_photographs()[:1])
    with pytest.raises(UserError, match="differs from torch"):
        require_parity(parity, *LIMITS["fp32"])


@pytest.mark.parametrize("wrong", [{"mean": (104.0, 117.0, 122.0)}, {"colour_order": "RGB"}])
def test_wrong_preprocessing_in_the_file_is_not_written(wrong, tmp_path, monkeypatch):
    convert = coreml_export._convert
    monkeypatch.setattr(
        coreml_export, "_convert", lambda ct, model, config, *rest: convert(ct, model, msgspec.structs.replace(config, **wrong), *rest)
    )
    with pytest.raises(UserError, match="differs from torch by"):
        export_coreml(default_checkpoint("retinaface"), "none", "fp32", (96, 64), tmp_path / "a", quietly)
    assert not list(tmp_path.iterdir())


def test_pictures_go_back_to_what_they_were():
    photo = load_image(PORTRAIT)[:64, :96]
    config = VARIANTS["retinaface"]
    spec = torch_detector(Checkpoint(build_detector(config), "test"), (64, 128)).input
    made = picture(prepare(photo, spec, (64, 128)).tensor, spec)
    np.testing.assert_array_equal(made[:, :96], photo)
    assert made[0, 100].tolist() == [123, 117, 104]  # the mean's colour, RGB


def short_weights(package):
    (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:-2000])


def wrong_weights(package):
    data = bytearray((package / WEIGHTS).read_bytes())
    data[64] ^= 1  # of the first header
    (package / WEIGHTS).write_bytes(data)


def unknown_operator(package):
    change(package, lambda spec: setattr(next(operation for operation in operations(spec) if operation.type == "conv"), "type", "magic"))


def unknown_parameter(package):
    def edit(spec):
        operation = next(operation for operation in operations(spec) if operation.type == "relu")
        operation.inputs["turbo"].CopyFrom(operation.inputs["x"])

    change(package, edit)


def other_shape(package):
    def edit(spec):
        operation = next(operation for operation in operations(spec) if operation.type == "conv")
        operation.outputs[0].type.tensorType.dimensions[2].constant.size += 1

    change(package, edit)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda package: (package / "Manifest.json").unlink(), "Manifest.json does not say where the model is"),
        (lambda package: (package / "Manifest.json").write_text("[]"), "Manifest.json does not say where the model is"),
        (
            lambda package: (package / "Manifest.json").write_text(
                '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "../../../secret"}}}'
            ),
            "it has no file ../../../secret",
        ),
        (lambda package: (package / SPECIFICATION).write_bytes(b"no protocol buffer"), "is no Core ML specification"),
        (lambda package: (package / SPECIFICATION).write_bytes(b""), "is no ML Program but nothing"),
        (lambda package: (package / WEIGHTS).unlink(), "it has no file .*weight.bin"),
        (short_weights, "weight.bin ends before"),
        (wrong_weights, "weight.bin has no torch.float32 of shape"),
        (unknown_operator, "operator magic is not known"),
        (unknown_parameter, "relu with turbo, x is not known"),
        (other_shape, "declared is"),
    ],
)
def test_damaged_packages(copied, damage, said):
    damage(copied)
    with pytest.raises(UserError, match=said):
        Program(copied)(np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.parametrize(
    ("missing", "said"),
    [("coremltools", "coremltools cannot be loaded"), ("coremltools.libmilstoragepython", "writes no ML Programs on")],
)
def test_without_the_converter(missing, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=said):
        export_coreml(default_checkpoint("retinaface"), "none", "fp32", (64, 64), tmp_path / "a", quietly)


def test_a_converter_that_fails_names_its_log_and_an_interruption_leaves_the_artifact(coreml_artifact, tmp_path, monkeypatch, capfd):
    path = shutil.copytree(coreml_artifact.path, tmp_path / "a")
    before = open_artifact(path).manifest

    def fail(error):
        def trace(*arguments):
            print("said by a converter")
            raise error

        monkeypatch.setattr("torch.jit.trace", trace)
        export_coreml(default_checkpoint("retinaface"), "none", "fp32", (64, 64), path, quietly)

    with pytest.raises(
        UserError, match=r"coremltools cannot convert retinaface \(RuntimeError\); the converter's log is (.+\.log)"
    ) as raised:
        fail(RuntimeError("torch is out of sorts"))
    with open(str(raised.value).rpartition(" ")[2]) as log:
        assert log.read() == "said by a converter\n\ntorch is out of sorts\n"
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt)
    assert open_artifact(path).manifest == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert capfd.readouterr() == ("", "")


def test_command_line(cli, tmp_path):
    code, said, progress = cli("export", "coreml", "--variant", "retinaface", "--size", 96, 64, "--out", tmp_path / "a")
    assert code == 0
    assert "differs from torch by" in said
    assert [line for line in progress.splitlines() if line.startswith("  ")] == [
        "  converting to Core ML ...",
        "  comparing with torch ...",
    ]
    artifact = open_artifact(tmp_path / "a")
    assert (artifact.manifest.format, artifact.manifest.precision, artifact.manifest.input.size) == ("coreml", "fp16", (96, 64))
    assert artifact.model_path.name == "model.mlpackage"
    for arguments, known in ((("--dcn", "native"), "decomposed"), (("--size", 100), "multiples of 32"), (("--precision", "int4"), "fp16")):
        code, _, error = cli("export", "coreml", *arguments)
        assert code == 2
        assert known in error_line(error)


@pytest.mark.skipif(sys.platform == "darwin", reason="here Core ML itself runs")
def test_what_stands_in_for_core_ml_has_no_times(cli, coreml_artifact, tmp_path):
    code, table, _ = cli("runtime_bench", "run", coreml_artifact.path, "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 0
    assert "latency: not measured here, where coreml-evaluator (torch" in table
    (result,) = read_results(tmp_path / "r.json")
    assert (result.runtime, result.latency_ms, result.load_ms, result.peak_memory_bytes) == ("coreml-evaluator", None, None, None)
    assert abs(result.drop.hard) < 0.02
    assert result.size_bytes == sum(file.stat().st_size for file in coreml_artifact.model_path.rglob("*") if file.is_file())
    for command in ("compare", "profile"):
        code, _, error = cli("runtime_bench", command, coreml_artifact.path)
        assert code == 2
        assert "coreml" in error_line(error)

"""INT8 for Core ML: what the evaluator makes of integers against torch's and numpy's, and programs against fake quantization in torch."""

import json
import warnings

import coremltools
import msgspec
import numpy as np
import pytest
import torch
from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights
from coremltools.proto import MIL_pb2
from torch import nn
from torch.nn.functional import conv2d, leaky_relu

from export.coreml_export import export_coreml
from model.artifact import open_artifact
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image
from quantize.calibration import CalibrationSet
from quantize.coreml_int8 import CoremlInt8, quantized
from quantize.make import calibrate, write_int8
from runtime_bench.mil import _OPERATORS, Program, _compressed, _Weights, read_specification
from runtime_bench.samples import PORTRAIT
from tests.conftest import error_line

NECK = msgspec.structs.replace(VARIANTS["acwface_dcn"], deform=("neck",), attention="none", offset_limit=1.0)
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
INT8 = {"quant_min": -128, "quant_max": 127}


def quietly(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def photo():
    return load_image(PORTRAIT)[100:140, 200:248]


def test_rounding_and_saturation_are_torchs():
    halves = torch.arange(-2000, 2000) / 16  # an eighth of a step apart, so that every second one lies between two integers
    x = torch.cat([halves, torch.tensor([1e9, -1e9, float("inf"), 0.1])])
    for zero in (-128, -7, 0, 127):
        given = {"scale": torch.tensor(0.125), "zero_point": torch.tensor(zero, dtype=torch.int8)}
        whole = _OPERATORS["quantize"](x, output_dtype="int8", **given)
        expected = np.clip(np.rint(x.numpy() / np.float32(0.125)) + zero, -128, 127)
        np.testing.assert_array_equal(whole.numpy(), expected)
        back = _OPERATORS["dequantize"](whole.to(torch.int8), **given)
        finite = x.abs() < 1e8
        torch.testing.assert_close(back[finite], torch.fake_quantize_per_tensor_affine(x[finite], 0.125, zero, **INT8), atol=0, rtol=0)
    unsigned = _OPERATORS["quantize"](x, torch.tensor(0.5), "uint8", torch.tensor(100, dtype=torch.uint8))
    assert (unsigned.min(), unsigned.max()) == (0, 255)


@pytest.mark.parametrize("axis", [1, -3])
def test_a_scale_for_each_channel(axis):
    x = torch.randn(2, 3, 4, 5) * torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1)
    scales, zeros = torch.tensor([1 / 256, 1 / 16, 0.25]), torch.tensor([3, 0, -40], dtype=torch.int8)
    given = {"scale": scales, "zero_point": zeros, "axis": torch.tensor(axis)}
    whole = _OPERATORS["quantize"](x, output_dtype="int8", **given).to(torch.int8)
    expected = torch.fake_quantize_per_channel_affine(x, scales, zeros.int(), 1, **INT8)
    torch.testing.assert_close(_OPERATORS["dequantize"](whole, **given), expected, atol=0, rtol=0)


class Small(nn.Module):
    """With everything that decides where numbers are rounded: an activation behind a convolution, two readers, a sum, a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=2), nn.Conv2d(8, 5, 1)
        with torch.no_grad():
            self.second.weight[1].zero_()

    def forward(self, image, fake=lambda name, x: x, weight=lambda x: x):
        first = leaky_relu(conv2d(fake("image", image), weight(self.first.weight), self.first.bias, 2, 1), 0.1)
        first = fake("joined", first)
        second = fake("joined", conv2d(first, weight(self.second.weight), self.second.bias, 1, 1, groups=2))
        joined = fake("joined", torch.cat([first, second], dim=1))
        third = fake("third", conv2d(joined, weight(self.third.weight), self.third.bias))
        return third.abs(), first + 1.0


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Small().eval()


def converted(module, precision):
    shape = (1, 3, 40, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return coremltools.convert(
            torch.jit.trace(module, torch.zeros(shape)),
            inputs=[coremltools.ImageType(name="image", shape=shape, scale=1 / 128, bias=[-1, -1, -1], color_layout="RGB")],
            outputs=[coremltools.TensorType(name=name, dtype=np.float32) for name in ("scores", "deltas")],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision,
            skip_model_load=True,
        )


def layers(model):
    operations = next(iter(model._mil_program.functions.values())).operations
    return [operation.outputs[0].name for operation in operations if operation.op_type == "conv"]


def ranged(model, image, folder):
    """The program's own extremes, and those of what a concatenation shares."""
    model.save(str(folder / "float.mlpackage"))
    return {name: (min(0.0, float(x.min())), max(0.0, float(x.max()))) for name, x in Program(folder / "float.mlpackage").watch(image)}


def fakes(ends):
    """The two functions that make :class:`Small` compute with integers, by torch's own rounding."""

    def fake(name, x):
        low, high = ends[name]
        scale = (high - low) / 255
        return torch.fake_quantize_per_tensor_affine(x, scale, round(-128 - low / scale), **INT8)

    def weight(x):
        scale = x.detach().abs().amax((1, 2, 3)) / 127
        scale[scale == 0] = 1
        return torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(len(x), dtype=torch.int32), 0, -127, 127)

    return fake, weight


@pytest.mark.parametrize(("precision", "share"), [("FLOAT32", 0.05), ("FLOAT16", 0.7)])
def test_a_program_computes_what_fake_quantization_does(small, photo, precision, share, tmp_path):
    model = converted(small, getattr(coremltools.precision, precision))
    ranges = ranged(model, photo, tmp_path)
    names = layers(model)
    quantized(model, names, ranges, throughout=False).save(str(tmp_path / "int8.mlpackage"))
    program = Program(tmp_path / "int8.mlpackage")
    assert (program.operators.count("quantize"), program.operators.count("dequantize")) == (5, 5)
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 128 - 1
    with torch.no_grad():
        first = leaky_relu(small.first(image), 0.1)
        second = small.second(first)
        together = torch.cat([first, second], dim=1)
        seen = {"image": image, "joined": together, "third": small.third(together)}
        ends = {name: (min(0.0, float(x.min())), max(0.0, float(x.max()))) for name, x in seen.items()}
        fake, weight = fakes(ends)
        expected = small(image, fake, weight)
        exact = small(image)
    for found, wanted, plain in zip(program(photo).values(), expected, exact, strict=True):
        # What lies between two integers may fall to either side when a sum is added up in another order, or in half precision.
        noise, rounding = (np.sqrt(np.square(other - wanted.numpy()).mean()) for other in (found, plain.numpy()))
        assert noise < share * rounding


def test_weights_alone(small, photo, tmp_path):
    model = converted(small, coremltools.precision.FLOAT32)
    quantized(model, layers(model)[1:], None, throughout=False).save(str(tmp_path / "w8.mlpackage"))
    program = Program(tmp_path / "w8.mlpackage")
    assert not {"quantize", "dequantize"} & set(program.operators)
    _, weight = fakes({})
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 128 - 1
    with torch.no_grad():
        kept = iter([lambda x: x, weight, weight])
        expected = small(image, weight=lambda x: next(kept)(x))
    for found, wanted in zip(program(photo).values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6, rtol=1e-5)


def stored(package):
    """What weights say that are stored as integers, by shape, and their int8 values."""
    spec, folder = read_specification(package)
    weights = _Weights(package, folder)
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    found = [_compressed(operation, package, weights) for operation in block.operations if operation.type.startswith("constexpr")]
    return {tuple(weight.shape): weight for weight in found}


def test_weights_are_those_of_coremltools_own_quantizer(small, tmp_path):
    model = converted(small, coremltools.precision.FLOAT32)
    quantized(model, layers(model), None, throughout=False).save(str(tmp_path / "ours.mlpackage"))
    config = OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)
    with np.errstate(invalid="ignore"):  # it divides zeros by zero
        theirs = linear_quantize_weights(model, OptimizationConfig(global_config=config))
    theirs.save(str(tmp_path / "theirs.mlpackage"))
    ours, theirs = (stored(tmp_path / f"{name}.mlpackage") for name in ("ours", "theirs"))
    assert len(ours) == 3
    for shape, weight in ours.items():
        step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
        assert ((weight - theirs[shape]).abs() <= 0.001 * step).all()


def unknown_operator(operation, package):
    operation.type = "constexpr_lut_to_dense"


def missing_scale(operation, package):
    del operation.attributes["scale"]


def other_shape(operation, package):
    operation.outputs[0].type.tensorType.dimensions[0].constant.size += 1


def not_int8(operation, package):
    place = operation.attributes["quantized_data"].blobFileValue.offset
    data = bytearray((package / WEIGHTS).read_bytes())
    data[place + 4] ^= 7  # the header's type
    (package / WEIGHTS).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (unknown_operator, "operator constexpr_lut_to_dense is not known"),
        (missing_scale, "constexpr_affine_dequantize with axis, quantized_data, zero_point is not known"),
        (other_shape, "declared is"),
        (not_int8, "weight.bin has no torch.int8 of shape"),
    ],
)
def test_damaged_weights(small, damage, said, tmp_path):
    package = tmp_path / "w8.mlpackage"
    model = converted(small, coremltools.precision.FLOAT32)
    quantized(model, layers(model), None, throughout=False).save(str(package))
    spec, folder = read_specification(package)
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    damage(next(operation for operation in block.operations if operation.type.startswith("constexpr")), package)
    (folder / "model.mlmodel").write_bytes(spec.SerializeToString())
    with pytest.raises(UserError, match=said):
        Program(package)


@pytest.fixture(scope="module")
def retinaface(public_retinaface, tmp_path_factory):
    path = tmp_path_factory.mktemp("retinaface") / "float"
    export_coreml(public_retinaface, "none", "fp32", (96, 192), path, quietly)
    return open_artifact(path)


def test_the_command_writes_both_kinds(cli, retinaface, tmp_path):
    code, out, err = cli("quantize", "run", retinaface.path, "--count", 16, "--out", tmp_path, "--json", tmp_path / "int8.json")
    assert code == 0, err
    records = json.loads((tmp_path / "int8.json").read_bytes())
    assert [(record["format"], record["precision"], record["speedup"], record["passed"]) for record in records] == [
        ("coreml", "int8", None, True),
        ("coreml", "w8", None, True),
    ]
    for record, ios, version in zip(records, ("17", "16"), (8, 7), strict=True):
        assert record["size_ratio"] < 0.36
        artifact = open_artifact(tmp_path / record["artifact"])
        assert artifact.manifest.runtime.minimum_version == ios
        assert f"Core ML of iOS {ios} or newer" in (artifact.path / "MODEL_CARD.md").read_text()
        assert artifact.manifest.input.dtype == "image"
        spec, _ = read_specification(artifact.model_path)
        assert spec.specificationVersion == version
        assert spec.description.input[0].type.imageType.colorSpace == spec.description.input[0].type.imageType.BGR
        assert record["artifact"] in out
        code, _, err = cli("quantize", "run", artifact.path)
        assert code == 2
        assert "quantized already" in error_line(err)


def test_the_older_format_is_refused(cli, tmp_path):
    export_coreml(Checkpoint(build_detector(NECK, seed=0), "test"), "custom", "fp32", (64, 64), tmp_path / "a", quietly)
    code, _, err = cli("quantize", "run", tmp_path / "a", "--count", 16)
    assert code == 2
    assert "quantize route decomposed or bounded" in error_line(err)


@pytest.fixture(scope="module", params=["decomposed", "bounded"])
def deformable(request, tmp_path_factory):
    """A small deformable network: its route, its INT8 program, and parity."""
    folder = tmp_path_factory.mktemp("deformable")
    export_coreml(Checkpoint(build_detector(NECK, seed=0), "seeded"), request.param, "fp32", (64, 64), folder / "float", quietly)
    calibrated = calibrate(open_artifact(folder / "float"), CalibrationSet(tuple(sorted(PORTRAIT.parent.glob("*.png")))[:4], 0), quietly)
    kept = () if request.param == "bounded" else calibrated.network.kept
    write_int8(calibrated, "min-max", kept, folder / "int8", quietly)
    spec, _ = read_specification(folder / "int8" / "model.mlpackage")
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return request.param, block, open_artifact(folder / "int8")


def flows(block):
    """Of each operator the kinds of those that make what it reads, constants left out, and of those that read what it makes."""
    made = {output.name: operation.type for operation in block.operations for output in operation.outputs}
    readers: dict[str, set[str]] = {}
    for operation in block.operations:
        for given in operation.inputs.values():
            for argument in given.arguments:
                readers.setdefault(argument.name, set()).add(operation.type)
    for operation in block.operations:
        if operation.type != "const" and not operation.type.startswith("constexpr"):
            names = [argument.name for given in operation.inputs.values() for argument in given.arguments]
            makers = {made.get(name, "image") for name in names} - {"const", "constexpr_affine_dequantize"}
            yield operation, makers, set().union(*(readers.get(output.name, set()) for output in operation.outputs))


def test_a_bounded_network_is_integer_throughout_if_nothing_is_kept(deformable):
    route, block, artifact = deformable
    if route != "bounded":
        pytest.skip("the other route")
    others = []
    for operation, makers, readers in flows(block):
        activation = operation.type in ("leaky_relu", "relu")
        reads = makers <= ({"dequantize", "conv"} if activation else {"dequantize"})
        gives = readers <= {"quantize"} or (operation.type == "conv" and readers <= {"leaky_relu", "relu"})
        if operation.type not in ("quantize", "dequantize") and not (reads and gives):
            others.append(operation.type)
    # In front the picture's scaling, behind the three convolutions at the end the way to the three outputs.
    assert others.count("sigmoid") == 1
    assert set(others) <= {"cast", "mul", "add", "transpose", "reshape", "concat", "split", "sigmoid"}
    assert not [name for name in Program(artifact.model_path).operators if name == "resample"]


def test_coordinates_and_samples_stay_in_float(deformable):
    route, block, _ = deformable
    if route != "decomposed":
        pytest.skip("the other route")
    found = {operation.type: (makers, readers) for operation, makers, readers in flows(block) if operation.type in ("resample", "clip")}
    makers, readers = found["resample"]
    assert "reshape" in makers  # coordinates
    assert readers == {"mul"}
    assert "quantize" not in found["clip"][1]
    integers = MIL_pb2.DataType.Value("INT8")
    predicted = [operation for operation in block.operations if operation.type == "quantize" and shape(operation)[1] == 27]
    assert len(predicted) == 2
    assert all(operation.outputs[0].type.tensorType.dataType == integers for operation in predicted)


def shape(operation):
    return [dimension.constant.size for dimension in operation.outputs[0].type.tensorType.dimensions]


def test_a_layer_alone_and_layers_kept(public_retinaface, tmp_path):
    network = CoremlInt8(public_retinaface, "none", (64, 64))
    tensor = np.zeros((1, 3, 64, 64), np.float32)
    names = {name for activations in network.activations([tensor]) for name, _ in activations}
    assert set(network.layers) < names
    assert len(network.layers) == 50
    ranges = dict.fromkeys(names, (-1.0, 1.0))
    for choice, integer in (({"only": network.layers[7:8]}, 1), ({"kept": network.kept}, 38), ({}, 50)):
        network.write(tmp_path / "m.mlpackage", ranges, **choice)
        spec, _ = read_specification(tmp_path / "m.mlpackage")
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        assert sum(operation.type == "constexpr_affine_dequantize" for operation in block.operations) == integer

"""INT8 artifacts: made, run, judged. Files are read by other means than those that wrote them."""

import json

import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from export.kernel import library_path
from export.onnx_export import export_onnx
from export.tflite_export import both_ways, export_tflite
from export.tflite_model import read_model, schema
from model.artifact import open_artifact
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from model.preprocess import load_image, prepare
from quantize import calibration
from quantize.calibration import CalibrationSet
from quantize.make import calibrate, write_int8
from quantize.network import FIRST
from quantize.onnx_int8 import store_as_integers
from runtime_bench.detect import artifact_detector
from runtime_bench.samples import PORTRAIT
from runtime_bench.widerface import EVALUATION
from tests.conftest import error_line

SIZE = (96, 192)
# Two deformable layers, of 23: torch.onnx takes a minute for all of them.
NECK = msgspec.structs.replace(VARIANTS["acwface_dcn"], deform=("neck",), attention="none", offset_limit=1.0)


def quietly(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def float_artifacts(public_retinaface, tmp_path_factory):
    """The public RetinaFace by format."""
    folder = tmp_path_factory.mktemp("float")
    export_onnx(public_retinaface, "none", SIZE, folder / "onnx", quietly)
    export_tflite(public_retinaface, "none", "fp32", SIZE, folder / "tflite", quietly)
    return {format: open_artifact(folder / format) for format in ("onnx", "tflite")}


@pytest.fixture(scope="module")
def integer(float_artifacts, tmp_path_factory):
    """INT8 of them, and how each was made."""
    folder = tmp_path_factory.mktemp("int8")
    photographs = CalibrationSet(tuple(sorted(PORTRAIT.parent.glob("*.png")))[:16], 0)
    made = {}
    for format, artifact in float_artifacts.items():
        calibrated = calibrate(artifact, photographs, quietly)
        write_int8(calibrated, "percentile", calibrated.network.kept, folder / format, quietly)
        made[format] = open_artifact(folder / format), calibrated
    return made


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_face_is_still_there(float_artifacts, integer, format):
    portrait = load_image(PORTRAIT)
    (before, after) = (artifact_detector(side, 1).detect(portrait, EVALUATION)[0] for side in (float_artifacts[format], integer[format][0]))
    assert abs(before.scores[0] - after.scores[0]) < 0.05
    assert np.abs(before.boxes[0] - after.boxes[0]).max() < 0.05 * (before.boxes[0][2] - before.boxes[0][0])


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_artifact_says_how_it_was_made(integer, format):
    artifact, calibrated = integer[format]
    record = json.loads((artifact.path / "quantization.json").read_bytes())
    assert artifact.manifest.precision == "int8"
    assert record["photographs_sha256"] == calibrated.photographs.digest()
    assert record["kept"] == list(calibrated.network.kept)
    assert artifact.manifest.model.size_bytes < 0.36 * calibrated.artifact.manifest.model.size_bytes


def test_onnx_weights_are_int8_but_for_the_kept(float_artifacts, integer):
    artifact, calibrated = integer["onnx"]
    model = onnx.load(artifact.model_path)
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    widened = [makers[node.input[1]] for node in convolutions if node.input[1] in makers]
    assert len(convolutions) - len(widened) == len(calibrated.network.kept)
    exact = {tensor.shape: [] for tensor in constants.values()}
    for tensor in calibrated.network.model.graph.initializer:
        exact.setdefault(tuple(tensor.dims), []).append(numpy_helper.to_array(tensor))
    for node in widened:
        values, scale = (constants[name] for name in node.input[:2])
        assert values.dtype == np.int8
        assert scale.shape == (len(values),)
        narrow = values * scale.reshape(-1, 1, 1, 1)
        assert any(np.all(np.abs(narrow - weight) <= 0.5001 * scale.reshape(-1, 1, 1, 1)) for weight in exact[values.shape])


def test_tflite_keeps_to_the_specification(integer):
    artifact, calibrated = integer["tflite"]
    model = read_model(artifact.model_path)
    (graph,) = model.subgraphs
    kinds = schema.TensorType
    kept = 0
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if code not in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D):
            continue
        data, weight, bias = (graph.tensors[int(index)] for index in operator.inputs)
        out = graph.tensors[int(operator.outputs[0])]
        if data.type == kinds.FLOAT32:
            kept += 1
            continue
        assert (data.type, weight.type, bias.type, out.type) == (kinds.INT8, kinds.INT8, kinds.INT32, kinds.INT8)
        scales = weight.quantization.scale
        axis = 0 if code == schema.BuiltinOperator.CONV_2D else 3
        assert weight.quantization.quantizedDimension == axis
        assert len(scales) == weight.shape[axis]
        assert not np.any(weight.quantization.zeroPoint)
        np.testing.assert_allclose(bias.quantization.scale, data.quantization.scale[0] * scales, rtol=1e-6)
    assert kept == len(calibrated.network.kept)


@pytest.fixture(scope="module")
def of_precision(integer, tmp_path_factory):
    """The public RetinaFace as TFLite in the other precisions."""
    folder, made = tmp_path_factory.mktemp("precisions"), {}
    for precision in ("int8io", "int16"):
        calibrated = integer["tflite"][1]
        write_int8(calibrated, "min-max", calibrated.network.kept, folder / precision, quietly, precision)
        made[precision] = open_artifact(folder / precision)
    return made


def _noise(values, exact, scores):
    """Share of noise where there are faces."""
    faces = scores > 0.1
    return np.square(values[faces] - exact[faces]).mean() / np.square(exact[faces]).mean()


def test_integers_go_in_and_come_out(float_artifacts, of_precision):
    artifact = of_precision["int8io"]
    assert (artifact.manifest.input.dtype, {output.dtype for output in artifact.manifest.outputs}) == ("int8", {"int8"})
    interpreter = Interpreter(str(artifact.model_path))
    interpreter.allocate_tensors()
    (entering,), leaving = interpreter.get_input_details(), interpreter.get_output_details()
    assert {end["dtype"] for end in (entering, *leaving)} == {np.int8}
    assert {end["name"] for end in leaving} == {"scores", "box_deltas", "landmark_deltas"}
    signature = interpreter.get_signature_runner()
    tensor = prepare(load_image(PORTRAIT), artifact.manifest.input, SIZE).tensor
    scale, zero = entering["quantization"]
    outputs = signature(image=np.clip(np.rint(tensor.transpose(0, 2, 3, 1) / scale) + zero, -128, 127).astype(np.int8))
    exact = artifact_detector(float_artifacts["tflite"], 1).runtime.run(tensor)
    ours = artifact_detector(artifact, 1).runtime.run(tensor)
    for end in leaving:
        scale, zero = end["quantization"]
        values = scale * (outputs[end["name"]][0].astype(np.float64) - zero)
        np.testing.assert_allclose(getattr(ours, end["name"]), values, rtol=1e-5, atol=1e-6)
        assert _noise(values, getattr(exact, end["name"]), exact.scores) < 0.02


def test_an_artifact_that_is_not_what_it_says_is_refused(integer, of_precision):
    lying = msgspec.structs.replace(of_precision["int8io"], manifest=integer["tflite"][0].manifest)
    with pytest.raises(UserError, match=r"is int8, detector.json says float32; export it again"):
        artifact_detector(lying, 1)


def test_activations_of_16_bits_are_nearly_exact(float_artifacts, integer, of_precision):
    artifact, kinds = of_precision["int16"], schema.TensorType
    (graph,) = read_model(artifact.model_path).subgraphs
    integers = [tensor for tensor in graph.tensors if tensor.type == kinds.INT16]
    assert len(integers) > 50
    assert not any(np.any(tensor.quantization.zeroPoint) for tensor in integers)
    assert not [tensor for tensor in graph.tensors if tensor.type == kinds.INT8 and tensor.buffer == 0]
    assert {tensor.type for tensor in graph.tensors if tensor.type == kinds.INT64}
    tensor = prepare(load_image(PORTRAIT), artifact.manifest.input, SIZE).tensor
    exact, eight, sixteen = (
        artifact_detector(side, 1).runtime.run(tensor) for side in (float_artifacts["tflite"], integer["tflite"][0], artifact)
    )
    for name in ("scores", "box_deltas", "landmark_deltas"):
        coarse, fine = (_noise(getattr(side, name), getattr(exact, name), exact.scores) for side in (eight, sixteen))
        assert fine < 1e-3
        assert fine < coarse / 2


@pytest.fixture(scope="module", params=["decomposed", "bounded"])
def deformable(request, tmp_path_factory):
    """A small deformable network as INT8 TFLite: its route, model file, and the float artifact."""
    folder = tmp_path_factory.mktemp("deformable")
    checkpoint = Checkpoint(build_detector(NECK, seed=0), "seeded")
    export_tflite(checkpoint, request.param, "fp32", (64, 64), folder / "float", quietly)
    artifact = open_artifact(folder / "float")
    calibrated = calibrate(artifact, CalibrationSet(tuple(sorted(PORTRAIT.parent.glob("*.png")))[:4], 0), quietly)
    for precision in ("int8", "int8io"):
        write_int8(calibrated, "min-max", calibrated.network.kept, folder / precision, quietly, precision)
    return request.param, folder / "int8" / "model.tflite", artifact


def _operators(path):
    """Of each operator its name, and the types of what goes in and comes out."""
    model = read_model(path)
    (graph,) = model.subgraphs
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    for operator in graph.operators:
        types = [{graph.tensors[int(index)].type for index in side if index >= 0} for side in (operator.inputs, operator.outputs)]
        yield names[model.operatorCodes[operator.opcodeIndex].builtinCode], *types


def test_a_bounded_network_is_integer_throughout(deformable):
    route, path, _ = deformable
    if route != "bounded":
        pytest.skip("the other route")
    floats = [name for name, inputs, outputs in _operators(path) if schema.TensorType.FLOAT32 in inputs | outputs]
    # In at the front, three outputs at the back, and behind one of them the probability.
    assert sorted(floats) == ["DEQUANTIZE"] * 3 + ["LOGISTIC", "QUANTIZE", "RESHAPE"]
    types = set().union(*(inputs | outputs for _, inputs, outputs in _operators(path.parents[1] / "int8io" / path.name)))
    assert schema.TensorType.FLOAT32 not in types


def test_the_first_layers_of_a_bounded_network_have_16_bits(deformable):
    route, path, _ = deformable
    if route != "bounded":
        pytest.skip("the other route")
    kinds = schema.TensorType
    layers = [outputs for name, _, outputs in _operators(path) if name in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert layers[:FIRST] == [{kinds.INT16}] * FIRST
    assert {kinds.INT16} not in layers[FIRST:]


def test_coordinates_stay_in_float_and_pixels_do_not(deformable):
    route, path, _ = deformable
    if route != "decomposed":
        pytest.skip("the other route")
    kinds = schema.TensorType
    operators = list(_operators(path))
    assert all(kinds.FLOAT32 in inputs for name, inputs, _ in operators if name in ("FLOOR", "CAST"))
    gathers = [inputs for name, inputs, _ in operators if name == "GATHER"]
    assert gathers
    assert all(inputs == {kinds.INT8, kinds.INT32} for inputs in gathers)


def test_integers_compute_what_floats_do(deformable):
    _, path, artifact = deformable
    tensor = prepare(load_image(PORTRAIT), artifact.manifest.input, (64, 64)).tensor
    exact = artifact_detector(artifact, 1).runtime.run(tensor)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    outputs = {entry["name"]: interpreter.get_tensor(entry["index"])[0] for entry in interpreter.get_output_details()}
    for name in ("box_deltas", "landmark_deltas"):
        noise = np.square(outputs[name] - getattr(exact, name)).mean() / np.square(getattr(exact, name)).mean()
        assert noise < 0.03


def _integer(path) -> set[str]:
    """Names of operators that compute on int8 alone, and of the activations that are part of them."""
    model = read_model(path)
    (graph,) = model.subgraphs
    activations = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}
    names = set()
    for operator, (name, inputs, outputs) in zip(graph.operators, _operators(path), strict=True):
        if schema.TensorType.FLOAT32 not in inputs | outputs:
            names |= {name, activations.get(getattr(operator.builtinOptions, "fusedActivationFunction", None))}
    return names


@pytest.mark.parametrize(("variant", "names"), [("biretina", {"ELU", "LOGISTIC", "MAX_POOL_2D"}), ("retinaface_mobilenetv2", {"RELU6"})])
def test_what_only_the_relatives_have_is_integer_too(variant, names, tmp_path):
    checkpoint = Checkpoint(build_detector(VARIANTS[variant], seed=0), "seeded")
    export_tflite(checkpoint, "none", "fp32", (64, 64), tmp_path / "float", quietly)
    artifact = open_artifact(tmp_path / "float")
    calibrated = calibrate(artifact, CalibrationSet(tuple(sorted(PORTRAIT.parent.glob("*.png")))[:4], 0), quietly)
    write_int8(calibrated, "min-max", calibrated.network.kept, tmp_path / "int8", quietly)
    assert names <= _integer(tmp_path / "int8" / "model.tflite")
    tensor = prepare(load_image(PORTRAIT), artifact.manifest.input, (64, 64)).tensor
    exact = artifact_detector(artifact, 1).runtime.run(tensor)
    for detector in both_ways(open_artifact(tmp_path / "int8")):
        rounded = detector.runtime.run(tensor)
        assert np.square(rounded.box_deltas - exact.box_deltas).mean() < 0.03 * np.square(exact.box_deltas).mean()


@pytest.fixture(scope="module")
def by_the_kernel(tmp_path_factory):
    """The same network in ONNX with the kernel's operators: float, INT8 and how it was made."""
    try:
        library_path("ort")
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("custom")
    checkpoint = Checkpoint(build_detector(NECK, seed=0), "seeded")
    export_onnx(checkpoint, "custom", (64, 64), folder / "float", quietly)
    artifact = open_artifact(folder / "float")
    calibrated = calibrate(artifact, CalibrationSet(tuple(sorted(PORTRAIT.parent.glob("*.png")))[:4], 0), quietly)
    write_int8(calibrated, "min-max", calibrated.network.kept, folder / "int8", quietly)
    return artifact, open_artifact(folder / "int8"), calibrated


def test_deformable_layers_are_integer_in_onnx(by_the_kernel):
    _, artifact, _ = by_the_kernel
    model = onnx.load(artifact.model_path)
    operators = [node.op_type for node in model.graph.node]
    assert [operators.count(name) for name in ("QDeformConvTiled", "QConv3x3", "DeformConvTiled", "Conv3x3")] == [2, 2, 0, 0]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "QDeformConvTiled":
            assert (makers[node.input[0]], makers[node.input[1]]) == ("QConv3x3", "QuantizeLinear")
            assert constants[node.input[4]].dtype == np.int8
    read = {name for node in model.graph.node for name in node.input}
    assert read.issuperset(constants)
    assert {tensor.dtype for tensor in constants.values() if tensor.ndim == 3} == {np.dtype(np.int8)}


def test_deformable_layers_can_stay_in_float(by_the_kernel, tmp_path):
    _, _, calibrated = by_the_kernel
    nodes = calibrated.network.model.graph.node
    convolution, prediction = (next(node for node in nodes if node.op_type == name) for name in ("DeformConvTiled", "Conv3x3"))
    kept = (*calibrated.network.kept, convolution.output[0], prediction.output[0])
    write_int8(calibrated, "min-max", kept, tmp_path / "int8", quietly)
    operators = [node.op_type for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node]
    assert [operators.count(name) for name in ("QDeformConvTiled", "QConv3x3", "DeformConvTiled", "Conv3x3")] == [1, 1, 1, 1]


def test_the_kernel_computes_in_integers_what_it_does_in_float(by_the_kernel):
    before, after, _ = by_the_kernel
    tensor = prepare(load_image(PORTRAIT), before.manifest.input, (64, 64)).tensor
    exact, rounded = (artifact_detector(side, 1).runtime.run(tensor) for side in (before, after))
    for name in ("box_deltas", "landmark_deltas"):
        assert np.square(getattr(rounded, name) - getattr(exact, name)).mean() < 0.01 * np.square(getattr(exact, name)).mean()


def test_heads_that_are_kept_are_not_rounded_behind(integer):
    """Their outputs would share one scale where they are put together, and ONNX Runtime would round their weights."""
    model = onnx.load(integer["onnx"][0].model_path)
    makers = {name: node for node in model.graph.node for name in node.output}
    pending, seen = [output.name for output in model.graph.output], set()
    while pending:
        node = makers.get(pending.pop())
        if node is None or node.output[0] in seen:
            continue
        seen.add(node.output[0])
        assert node.op_type != "QuantizeLinear"
        if node.op_type != "Conv":
            pending += node.input


def test_the_command_passes_and_records(cli, float_artifacts, tmp_path):
    path = float_artifacts["onnx"].path
    code, out, err = cli("quantize", "run", path, "--count", 16, "--out", tmp_path, "--json", tmp_path / "int8.json")
    assert code == 0, err
    (record,) = json.loads((tmp_path / "int8.json").read_bytes())
    assert {"format", "route", "protocol", "ap_fp32", "ap_int8", "drop", "speedup", "size_ratio"} <= set(record)
    assert record["passed"]
    name = "retinaface-none-int8-96x192-onnx"
    assert open_artifact(tmp_path / name).manifest.precision == "int8"
    assert "smoke test" in err
    assert name in out
    code, _, err = cli("quantize", "run", tmp_path / name)
    assert code == 2
    assert "quantized already" in error_line(err)
    code, _, err = cli("quantize", "run", path, "--count", 16, "--precision", "int16", "--out", tmp_path, "--json", tmp_path / "int16.json")
    assert code == 2
    assert "onnx of route none is not made in int16; there are int8" in error_line(err)
    assert "calibrating" not in err


def test_a_bad_model_is_not_shipped(cli, float_artifacts, tmp_path, monkeypatch):
    monkeypatch.setitem(calibration.METHODS, "mse", lambda histogram: (histogram.low / 50, histogram.high / 50))
    path = float_artifacts["onnx"].path
    code, out, err = cli("quantize", "run", path, "--count", 16, "--out", tmp_path, "--json", tmp_path / "int8.json")
    assert code == 2
    assert "was not written; the worst layers" in error_line(err)
    assert err.count(" dB; ") == 3
    assert "FAILED" in out
    assert not json.loads((tmp_path / "int8.json").read_bytes())[0]["passed"]
    assert not list(tmp_path.glob("*-int8-*"))


def test_sensitivity_writes_a_recipe_that_run_takes(cli, float_artifacts, tmp_path):
    artifact = float_artifacts["onnx"]
    recipe = tmp_path / "recipe.json"
    code, out, err = cli("quantize", "sensitivity", artifact.path, "--count", 24, "--agreement", 50, "--out", recipe)
    assert code == 0, err
    layers = json.loads((tmp_path / "recipe.layers.json").read_bytes())["layers"]
    decibels = [layer["sqnr_db"] for layer in layers]
    assert decibels == sorted(decibels)
    assert len(layers) == 50  # convolutions of RetinaFace with merged heads
    assert layers[0]["layer"] in out
    code, out, err = cli(
        "quantize", "run", artifact.path, "--count", 16, "--recipe", recipe, "--out", tmp_path, "--json", tmp_path / "int8.json"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "int8.json").read_bytes())[0]["kept"] == json.loads(recipe.read_bytes())["kept"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "tflite"}, "is for retinaface-none in tflite"),
        ({"kept": ["no_such_layer"]}, "no layer 'no_such_layer'"),
        ({"method": "guess"}, "no method 'guess'; there are mse"),
    ],
)
def test_recipes_that_do_not_fit(cli, float_artifacts, tmp_path, changes, said):
    recipe = {"variant": "retinaface", "dcn": "none", "format": "onnx", "method": "mse", "kept": []} | changes
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    code, _, err = cli(
        "quantize", "run", float_artifacts["onnx"].path, "--count", 16, "--recipe", tmp_path / "recipe.json", "--out", tmp_path / "out"
    )
    assert code == 2
    assert said in error_line(err)
    assert not list(tmp_path.glob("out/*"))


def test_layers_that_share_a_weight_share_its_integers():
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32), "weight")
    nodes = [onnx.helper.make_node("DeformConv", ["x", "weight", "offset"], [out], pads=[1, 1, 1, 1]) for out in ("first", "second")]
    shape = [None] * 4
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "offset", "first", "second")]
    graph = onnx.helper.make_graph(nodes, "shared", values[:2], values[2:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    store_as_integers(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "DeformConv", "DeformConv"]
    assert all(node.input[1] == model.graph.node[0].output[0] for node in model.graph.node[1:])
    assert sorted(numpy_helper.to_array(tensor).dtype.name for tensor in model.graph.initializer) == ["float32", "int8", "int8"]

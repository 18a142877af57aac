"""The kernel's adapters: as operators of ONNX Runtime and as a LiteRT delegate."""

import os
import re
import struct

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.kernel import NATIVE, VERSION, host, library_path
from export.kernel.bindings import TAPS, Layer, library_version, open_int8_kernels, open_kernels
from export.kernel.build import Target, build
from export.kernel.headers import HEADERS, include_folder
from export.tflite_model import pack_model
from model.errors import UserError

HEIGHT, WIDTH, INPUTS, OUTPUTS = 21, 30, 24, 32
PIXELS = HEIGHT * WIDTH
LIMIT_PX, SLOPE = 1.5, 0.1
BATCH = 2


@pytest.fixture(scope="session")
def native():
    """The libraries of this machine, as the sources are now. Tests fetch nothing: headers have to be there already."""
    includes = []
    for headers in HEADERS:
        folder = os.environ.get(headers.variable) or include_folder(headers, NATIVE / "include")
        if not os.path.isdir(folder):
            pytest.skip(f"the C headers of {headers.name} have not been fetched: make native")
        includes.append(f"{headers.variable}={folder}")
    try:
        build(Target(host()), NATIVE / host(), includes)
    except UserError as error:
        if str(error).startswith("no "):  # no CMake, no compiler
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def arrays():
    """A layer's tensors for a batch. What belongs to another layer is NaN: touching it would show."""
    random = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    image, predicted = normal(BATCH, INPUTS, HEIGHT, WIDTH), normal(BATCH, 3 * TAPS, HEIGHT, WIDTH, scale=1.5)
    weight, bias = normal(OUTPUTS, INPUTS, 3, 3, scale=0.1), normal(OUTPUTS)
    rows = image.reshape(BATCH, INPUTS, PIXELS).transpose(0, 2, 1)
    mixing = weight.transpose(1, 2, 3, 0).reshape(INPUTS, TAPS * OUTPUTS)

    def beside(array, axis, before, after):
        sizes = [list(array.shape) for _ in range(2)]
        sizes[0][axis], sizes[1][axis] = before, after
        return np.concatenate([np.full(sizes[0], np.nan, np.float32), array, np.full(sizes[1], np.nan, np.float32)], axis)

    return {
        "image": image,
        "offset": predicted[:, : 2 * TAPS].clip(-LIMIT_PX, LIMIT_PX),
        "mask": 2 / (1 + np.exp(-predicted[:, 2 * TAPS :])),
        "weight": weight,
        "bias": bias,
        "predicted": beside(predicted, 1, 5, 3),
        "mixed": beside(rows @ mixing, 2, 7, 2),
        "rows": beside(rows, 2, 4, 1),
        "matrices": np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(TAPS, INPUTS, OUTPUTS)),
    }


ATTRIBUTES = {"predicted_start": 5, "channels": OUTPUTS, "offset_limit": LIMIT_PX, "negative_slope": SLOPE}
OPERATORS = {
    "DeformSample": (["predicted", "mixed", "bias"], {"mixed_start": 7}),
    "DeformConvTiled": (["predicted", "rows", "matrices", "bias"], {"input_start": 4}),
}


def onnx_session(nodes, shapes, threads=1, constants=None):
    """``shapes`` are those of the graph's inputs; names stand for dimensions that are not known."""
    types = {"pixels": TensorProto.UINT8, "integers": TensorProto.INT8}
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape) for name, shape in shapes.items()],
        [helper.make_empty_tensor_value_info("out")],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("acwface", 1)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library_path("ort")))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_onnx(nodes, feeds, threads=1):
    return onnx_session(nodes, {name: array.shape for name, array in feeds.items()}, threads).run(None, feeds)[0]


def operator(name, **changes):
    inputs, attributes = OPERATORS[name]
    return helper.make_node(name, inputs, ["out"], domain="acwface", **(ATTRIBUTES | attributes | changes))


@pytest.fixture(scope="module")
def expected(native, arrays):
    """ONNX Runtime's own DeformConv, (N, O, H, W)."""
    inputs = ["image", "weight", "offset", "bias", "mask"]
    nodes = [
        helper.make_node("DeformConv", inputs, ["sum"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["sum"], ["out"], alpha=SLOPE),
    ]
    return run_onnx(nodes, {name: arrays[name] for name in inputs})


@pytest.mark.parametrize("name", OPERATORS)
def test_onnx_runtime_computes_its_own_deformconv_with_it(arrays, expected, name):
    feeds = {key: arrays[key] for key in OPERATORS[name][0]}
    one = run_onnx([operator(name)], feeds)
    np.testing.assert_allclose(one, expected, atol=2e-5)
    np.testing.assert_array_equal(run_onnx([operator(name)], feeds, threads=2), one)


@pytest.mark.parametrize("name", OPERATORS)
def test_onnx_runtime_can_hand_over_channels_last(arrays, expected, name):
    feeds = {key: arrays[key] for key in OPERATORS[name][0]}
    feeds["predicted"] = np.ascontiguousarray(np.moveaxis(feeds["predicted"], 1, -1))
    source = OPERATORS[name][0][1]
    feeds[source] = feeds[source].reshape(BATCH, HEIGHT, WIDTH, -1)
    out = run_onnx([operator(name, predicted_channels_last=1, output_channels_last=1)], feeds)
    np.testing.assert_allclose(np.moveaxis(out, -1, 1), expected, atol=2e-5)


def prediction(arrays):
    """Conv3x3's node, its constants, and what ONNX Runtime's own Conv gives."""
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((27, INPUTS, 3, 3), dtype=np.float32) * 0.1, random.standard_normal(27, dtype=np.float32)
    conv = helper.make_node("Conv", ["image", "weight", "bias"], ["out"], kernel_shape=[3, 3], pads=[1] * 4)
    expected = run_onnx([conv], {"image": arrays["image"], "weight": weight, "bias": bias})
    node = helper.make_node("Conv3x3", ["rows", "taps", "bias"], ["out"], domain="acwface", input_start=4)
    return node, {"taps": np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(TAPS, INPUTS, 27)), "bias": bias}, expected


def test_onnx_runtime_predicts_with_it(native, arrays):
    node, constants, expected = prediction(arrays)
    feeds = {"rows": arrays["rows"].reshape(BATCH, HEIGHT, WIDTH, -1)}
    one, two = (onnx_session([node], {"rows": ["n", "h", "w", "c"]}, threads, constants).run(None, feeds)[0] for threads in (1, 2))
    np.testing.assert_allclose(np.moveaxis(one, -1, 1), expected, atol=2e-5)
    np.testing.assert_array_equal(two, one)


def test_onnx_runtime_infers_shapes(native, arrays):
    shapes = {"predicted": ["n", 32, "h", "w"], "mixed": ["n", "p", 297], "bias": [OUTPUTS]}
    (out,) = onnx_session([operator("DeformSample")], shapes).get_outputs()
    assert out.shape == ["n", OUTPUTS, "h", "w"]
    shapes["predicted"] = ["n", "h", "w", 32]
    (out,) = onnx_session([operator("DeformSample", predicted_channels_last=1, output_channels_last=1)], shapes).get_outputs()
    assert out.shape == ["n", "h", "w", OUTPUTS]
    node, constants, _ = prediction(arrays)
    (out,) = onnx_session([node], {"rows": ["n", 7, "w", 29]}, 1, constants).get_outputs()
    assert out.shape == ["n", 7, "w", 27]


def test_onnx_runtime_wants_constant_weights_to_predict(native, arrays):
    node, constants, _ = prediction(arrays)
    with pytest.raises(Exception, match="must be constants"):
        onnx_session([node], {"rows": ["n", 7, "w", 29]} | {name: array.shape for name, array in constants.items()})


@pytest.fixture(scope="module")
def integer(native):
    """Two images for the operators on integers, the constants, and what the bare kernel gives: of each node (N, H, W, O)."""
    random = np.random.default_rng(2)
    pixels = random.integers(0, 256, (BATCH, HEIGHT, WIDTH, INPUTS + 5), np.uint8)
    predicted = random.standard_normal((BATCH, HEIGHT, WIDTH, 3 * TAPS), dtype=np.float32)
    constants = {
        "pixels_scale": np.float32(0.02),
        "pixels_zero": np.uint8(120),
        "integers": random.integers(-127, 128, (TAPS, INPUTS, OUTPUTS), np.int8),
        "integers_scale": random.uniform(0.001, 0.002, OUTPUTS).astype(np.float32),
        "bias": random.standard_normal(OUTPUTS, dtype=np.float32),
        "out_scale": np.float32(0.07),
        "out_zero": np.uint8(130),
    }
    names = list(constants)
    nodes = {
        "QDeformConvTiled": helper.make_node(
            "QDeformConvTiled",
            ["predicted", "pixels", *names],
            ["out"],
            domain="acwface",
            input_start=4,
            offset_limit=LIMIT_PX,
            negative_slope=SLOPE,
        ),
        "QConv3x3": helper.make_node("QConv3x3", ["pixels", *names[:5]], ["out"], domain="acwface", input_start=4),
    }
    kernel = open_int8_kernels(library_path("ort"))[0]
    factors = constants["pixels_scale"] * constants["integers_scale"]
    expected = {"QDeformConvTiled": [], "QConv3x3": []}
    for image, shifts in zip(pixels, predicted, strict=True):
        part = np.ascontiguousarray(image[..., 4:])
        layer = Layer(shifts, constants["bias"] / constants["out_scale"], LIMIT_PX, SLOPE, nhwc=True)
        expected["QDeformConvTiled"].append(
            kernel.deform(layer, part, 120, constants["integers"], factors / constants["out_scale"], int(constants["out_zero"]))
        )
        expected["QConv3x3"].append(kernel.conv3x3(part, 120, constants["integers"], factors, constants["bias"]))
    return nodes, {"predicted": predicted, "pixels": pixels}, constants, expected


@pytest.mark.parametrize("name", ["QDeformConvTiled", "QConv3x3"])
def test_onnx_runtime_computes_in_integers(integer, name):
    nodes, feeds, constants, expected = integer
    feeds = {key: array for key, array in feeds.items() if key in nodes[name].input}
    constants = {key: array for key, array in constants.items() if key in nodes[name].input}
    dimensions = {"predicted": ["n", "h", "w", 27], "pixels": ["n", "h", "w", INPUTS + 5]}
    for threads in (1, 2):
        session = onnx_session([nodes[name]], {key: dimensions[key] for key in feeds}, threads, constants)
        assert session.get_outputs()[0].shape == ["n", "h", "w", OUTPUTS]
        np.testing.assert_array_equal(session.run(None, feeds)[0], expected[name])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"pixels_scale": np.ones(2, np.float32)}, "an image has one scale and one zero"),
        ({"out_scale": np.float32(0)}, "a scale must be positive"),
        ({"integers": np.ones((8, INPUTS, OUTPUTS), np.int8)}, "weight must be (9, C, O)"),
        ({"integers": np.ones((TAPS, INPUTS + 2, OUTPUTS), np.int8)}, "input has too few channels"),
        ({"integers_scale": np.ones(OUTPUTS + 1, np.float32)}, "weight's scale must be (O)"),
        ({"bias": np.ones(OUTPUTS + 1, np.float32)}, "bias must be (O)"),
        ({"integers": None}, "must be constants"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_onnx_runtime_says_which_integers_do_not_fit(integer, changes, complaint):
    nodes, feeds, constants, _ = integer
    constants = {name: array for name, array in (constants | changes).items() if array is not None}
    shapes = {name: array.shape for name, array in feeds.items()}
    shapes |= {name: (TAPS, INPUTS, OUTPUTS) for name, array in changes.items() if array is None}
    with pytest.raises(Exception, match=re.escape(complaint)):
        onnx_session([nodes["QDeformConvTiled"]], shapes, 1, constants).run(None, feeds)


@pytest.mark.parametrize(
    ("changes", "shapes", "complaint"),
    [
        ({}, {"predicted": (1, 31, 4, 4)}, "predicted has too few channels"),
        ({}, {"mixed": (1, 15, 297)}, "must be (N, H * W, channels)"),
        ({}, {"mixed": (2, 16, 297)}, "must be (N, H * W, channels)"),
        ({}, {"mixed": (1, 16, 294)}, "second input has too few channels"),
        ({}, {"bias": (31,)}, "bias must be (channels)"),
        ({"channels": 0}, {}, "channels must be positive"),
        ({"offset_limit": -1.0}, {}, "offset_limit must not be negative"),
        ({"mixed_start": -1}, {}, "start must not be negative"),
        ({"predicted_start": (1 << 63) - 1}, {}, "start is too large"),
        ({"mixed_start": (1 << 63) - 300}, {}, "start is too large"),
    ],
)
def test_onnx_runtime_says_what_does_not_fit(native, changes, shapes, complaint):
    fitting = {"predicted": (1, 32, 4, 4), "mixed": (1, 16, 295), "bias": (OUTPUTS,)}
    feeds = {name: np.zeros(shape, np.float32) for name, shape in (fitting | shapes).items()}
    with pytest.raises(Exception, match=re.escape(complaint)):  # of onnxruntime's many classes
        run_onnx([operator("DeformSample", **changes)], feeds)


def test_both_libraries_name_their_version(native):
    assert {library_version(library_path(adapter)) for adapter in ("ort", "litert")} == {VERSION}


def tflite_model(tensors, operators, inputs, outputs):
    """``tensors``: name to shape, or to an array for a constant; ``operators``: (name, custom options, inputs, output)."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [], [graph]
    graph.tensors, graph.operators, index = [], [], {}
    for name, value in tensors.items():
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
        if isinstance(value, np.ndarray):
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
            value = value.shape
        tensor.shape = list(value)
        index[name] = len(graph.tensors)
        graph.tensors.append(tensor)
    for name, options, sources, output in operators:
        code, node = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version = schema.BuiltinOperator.CUSTOM, 32, name, 1
        node.opcodeIndex = len(model.operatorCodes)
        node.inputs, node.outputs = [index[source] for source in sources], [index[output]]
        node.customOptions = np.frombuffer(options, np.uint8)
        model.operatorCodes.append(code)
        graph.operators.append(node)
    graph.inputs, graph.outputs = [index[name] for name in inputs], [index[name] for name in outputs]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def custom_options(predicted_start=5, source_start=0, channels=OUTPUTS, version=1):
    return struct.pack("<iiiiff", version, predicted_start, source_start, channels, LIMIT_PX, SLOPE)


def delegated(content):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    delegates = [litert.load_delegate(str(library_path("litert")))]
    interpreter = litert.Interpreter(model_content=content, experimental_delegates=delegates, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def test_litert_runs_both_operators(arrays, expected):
    """In one graph, so that neighbours are claimed too."""
    nhwc = {
        "predicted": np.moveaxis(arrays["predicted"], 1, -1),
        "mixed": arrays["mixed"].reshape(BATCH, HEIGHT, WIDTH, -1),
        "rows": arrays["rows"].reshape(BATCH, HEIGHT, WIDTH, -1),
    }
    shapes = {name: array.shape for name, array in nhwc.items()} | dict.fromkeys("ab", (BATCH, HEIGHT, WIDTH, OUTPUTS))
    content = tflite_model(
        shapes | {"bias": arrays["bias"], "matrices": arrays["matrices"]},
        [
            ("DeformSample", custom_options(source_start=7), ["predicted", "mixed", "bias"], "a"),
            ("DeformConvTiled", custom_options(source_start=4), ["predicted", "rows", "matrices", "bias"], "b"),
        ],
        list(nhwc),
        ["a", "b"],
    )
    interpreter = delegated(content)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.ascontiguousarray(nhwc[detail["name"]]))
    interpreter.invoke()
    for detail in interpreter.get_output_details():
        np.testing.assert_allclose(np.moveaxis(interpreter.get_tensor(detail["index"]), -1, 1), expected, atol=2e-5)


def test_litert_predicts_with_it(native, arrays):
    _, constants, expected = prediction(arrays)
    rows = arrays["rows"].reshape(BATCH, HEIGHT, WIDTH, -1)
    content = tflite_model(
        {"rows": rows.shape, "out": (BATCH, HEIGHT, WIDTH, 27)} | constants,
        [("Conv3x3", custom_options(0, 4, 27), ["rows", "taps", "bias"], "out")],
        ["rows"],
        ["out"],
    )
    interpreter = delegated(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], rows)
    interpreter.invoke()
    out = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(np.moveaxis(out, -1, 1), expected, atol=2e-5)


def test_litert_runs_one_operator_straight_after_another(native):
    """What lies between them belongs to no other node, and still needs memory."""
    random = np.random.default_rng(0)
    predicted, first = (random.standard_normal(shape, dtype=np.float32) for shape in ((1, 5, 6, 27), (1, 5, 6, 9 * 9)))
    content = tflite_model(
        {"predicted": predicted.shape, "first": first.shape, "between": (1, 5, 6, 9), "last": (1, 5, 6, 1)}
        | {"zeros": np.zeros(9, np.float32), "zero": np.zeros(1, np.float32)},
        [
            ("DeformSample", custom_options(0, 0, 9), ["predicted", "first", "zeros"], "between"),
            ("DeformSample", custom_options(0, 0, 1), ["predicted", "between", "zero"], "last"),
        ],
        ["predicted", "first"],
        ["last"],
    )
    interpreter = delegated(content)
    for detail, array in zip(interpreter.get_input_details(), (predicted, first), strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    kernel = open_kernels(library_path("litert"))[-1]
    between, last = (Layer(predicted[0], np.zeros(channels, np.float32), LIMIT_PX, SLOPE, nhwc=True) for channels in (9, 1))
    expected = kernel.sample(last, kernel.sample(between, first[0], between.empty_output()), last.empty_output())
    np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "channels"),
    [(custom_options(version=2), 32), (b"", 32), (custom_options(channels=-1), 32), (custom_options(), 31)],
    ids=["version", "absent", "range", "predicted"],
)
def test_litert_refuses_what_does_not_fit(native, options, channels):
    content = tflite_model(
        {
            "predicted": (1, 4, 4, channels),
            "mixed": (1, 4, 4, TAPS * OUTPUTS),
            "bias": np.zeros(OUTPUTS, np.float32),
            "out": (1, 4, 4, OUTPUTS),
        },
        [("DeformSample", options, ["predicted", "mixed", "bias"], "out")],
        ["predicted", "mixed"],
        ["out"],
    )
    with pytest.raises(RuntimeError, match="acwface"):
        delegated(content)


def changed(content, change):
    """The model with something done to its graph that no converter does."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model.subgraphs[0], schema)
    return pack_model(model)


def leave_out_bias(graph, schema):
    graph.operators[0].inputs = [*graph.operators[0].inputs[:2], -1]


def give_bytes(graph, schema):
    graph.tensors[graph.outputs[0]].type = schema.TensorType.INT8


@pytest.mark.parametrize(("change", "said"), [(leave_out_bias, "an input is left out"), (give_bytes, "the output must be float32")])
def test_litert_reads_and_writes_nothing_that_is_not_there(native, change, said):
    shapes = {"predicted": (1, 4, 4, 32), "mixed": (1, 4, 4, TAPS * OUTPUTS), "out": (1, 4, 4, OUTPUTS)}
    operators = [("DeformSample", custom_options(), ["predicted", "mixed", "bias"], "out")]
    content = tflite_model(shapes | {"bias": np.zeros(OUTPUTS, np.float32)}, operators, ["predicted", "mixed"], ["out"])
    delegated(content)
    with pytest.raises(RuntimeError, match=said):
        delegated(changed(content, change))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([("predicted", "late", 1, "out"), ("predicted", "mixed", TAPS, "late")], "a tensor is needed before it is computed"),
        ([("late", "mixed", TAPS, "late")], "a tensor is needed before it is computed"),
        ([("predicted", "mixed", 1, "out"), ("small_predicted", "small", 1, "out")], "a tensor is computed twice"),
        ([("predicted", "mixed", 1, "constant")], "the output is a constant"),
    ],
)
def test_litert_refuses_nodes_that_would_write_beyond_their_memory(native, nodes, said):
    """LiteRT does not see to it; some of these end the process."""
    inputs = {"predicted": (1, 4, 4, 32), "mixed": (1, 4, 4, TAPS * TAPS), "small_predicted": (1, 2, 2, 32), "small": (1, 2, 2, TAPS)}
    shapes = inputs | {"out": (1, 4, 4, 1), "late": (1, 4, 4, TAPS), "constant": np.zeros((1, 4, 4, 1), np.float32)}
    biases = {f"bias{channels}": np.zeros(channels, np.float32) for channels in (1, TAPS)}
    operators = [
        ("DeformSample", custom_options(channels=channels), [predicted, source, f"bias{channels}"], out)
        for predicted, source, channels, out in nodes
    ]
    with pytest.raises(RuntimeError, match=said):
        delegated(tflite_model(shapes | biases, operators, list(inputs), ["out"]))

"""The kernel against ONNX Runtime's DeformConv and Conv: one process, interleaved rounds, medians.

Every contender is a graph for ONNX Runtime. Those of a deformable layer start from what the offset and modulator convolutions have
predicted. The operators' own columns leave out what the runtime does for them: DeformSample is given mixed channels, and DeformConv
ready masks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from tabulate import tabulate

from export.kernel import VERSION, library_path
from export.kernel.bindings import TAPS, open_kernels
from export.kernel.shapes import PREDICTIONS, SHAPES, Shape
from model.errors import UserError

CALLS = 3
"""Timed in each round, after one that is not: what it reads is in the cache then as far as it fits, as after the node before it."""
TOLERANCE = 1e-4
OFFSET_PX = 0.7
"""Standard deviation of the offsets."""

Call = Callable[[], object]
Graph = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]
"""Nodes, and the arrays that are fed."""


def bench(threads: int, rounds: int, progress: Callable[[str], None]) -> str:
    """Two tables for people: the deformable operators, and the convolutions that predict for them.

    Raises:
        UserError: the library has not been built, or the kernel computes something else than ONNX Runtime.
    """
    kernel = open_kernels(library_path("ort"))[0].name
    rows = []
    for shape in SHAPES:
        progress(str(shape))
        times = _interleaved(_deformable(shape, threads), rounds)
        whole, bare = times["DeformConv, sigmoid"], times["DeformConv"]
        rows.append(
            [str(shape), bare, times["DeformSample"], f"{bare / times['DeformSample']:.1f}x", whole]
            + [cell for name in ("mix, DeformSample", "DeformConvTiled") for cell in (times[name], f"{whole / times[name]:.1f}x")]
        )
    headers = ["layer", "DeformConv", "DeformSample", "", "layer by DeformConv", "by mixing, DeformSample", "", "by DeformConvTiled", ""]
    predictions = []
    for shape in PREDICTIONS:
        progress(f"{shape}, prediction")
        times = _interleaved(_prediction(shape, threads), rounds)
        predictions.append([str(shape), times["Conv"], times["Conv3x3"], f"{times['Conv'] / times['Conv3x3']:.1f}x"])
    title = f"kernel {VERSION} ({kernel}), ONNX Runtime {onnxruntime.__version__}, {threads} thread(s), median ms of {rounds} rounds"
    tables = [
        tabulate(rows, headers, tablefmt="github", floatfmt=".3f"),
        tabulate(predictions, ["prediction", "Conv", "Conv3x3", ""], tablefmt="github", floatfmt=".3f"),
    ]
    return "\n\n".join([title, *tables])


def _interleaved(contenders: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median time of each, ms."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            call()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - start) / CALLS * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def _deformable(shape: Shape, threads: int) -> dict[str, Call]:
    side, inputs, outputs = shape
    random = np.random.default_rng(0)
    image, predicted, weight, bias = (
        random.standard_normal(size, dtype=np.float32) * scale
        for size, scale in (
            ((1, inputs, side, side), 1.0),
            ((1, 3 * TAPS, side, side), OFFSET_PX),
            ((outputs, inputs, 3, 3), 0.1),
            ((outputs,), 1.0),
        )
    )
    rows = np.ascontiguousarray(image.reshape(1, inputs, -1).transpose(0, 2, 1))
    mixing = np.ascontiguousarray(weight.transpose(1, 2, 3, 0).reshape(inputs, TAPS * outputs))
    matrices = np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(TAPS, inputs, outputs))
    offset, mask = predicted[:, : 2 * TAPS], 2 / (1 + np.exp(-predicted[:, 2 * TAPS :]))
    bounds = {"zero": [0], "middle": [2 * TAPS], "end": [3 * TAPS], "channel": [1]}
    split = [
        helper.make_node("Slice", ["predicted", "zero", "middle", "channel"], ["offset"]),
        helper.make_node("Slice", ["predicted", "middle", "end", "channel"], ["modulator"]),
        helper.make_node("Sigmoid", ["modulator"], ["half"]),
        helper.make_node("Mul", ["half", "two"], ["mask"]),
    ]
    deform = helper.make_node("DeformConv", ["image", "weight", "offset", "bias", "mask"], ["out"], kernel_shape=[3, 3], pads=[1] * 4)
    mix = helper.make_node("MatMul", ["rows", "mixing"], ["mixed"])
    sample = helper.make_node("DeformSample", ["predicted", "mixed", "bias"], ["out"], domain="acwface", channels=outputs)
    tiled = helper.make_node("DeformConvTiled", ["predicted", "rows", "matrices", "bias"], ["out"], domain="acwface", channels=outputs)
    constants = {"weight": weight, "bias": bias, "mixing": mixing, "matrices": matrices, "two": np.float32(2)}
    constants |= {name: np.array(value, np.int64) for name, value in bounds.items()}
    raw = {"predicted": predicted}
    graphs = {
        "DeformConv": ([deform], {"image": image, "offset": offset, "mask": mask}),
        "DeformSample": ([sample], raw | {"mixed": rows @ mixing}),
        "DeformConv, sigmoid": ([*split, deform], raw | {"image": image}),
        "mix, DeformSample": ([mix, sample], raw | {"rows": rows}),
        "DeformConvTiled": ([tiled], raw | {"rows": rows}),
    }
    return _agreeing(shape, graphs, constants, dict.fromkeys(graphs, (1, outputs, side, side)), threads)


def _prediction(shape: Shape, threads: int) -> dict[str, Call]:
    side, inputs, outputs = shape
    random = np.random.default_rng(0)
    image, weight = (random.standard_normal(size, dtype=np.float32) for size in ((1, inputs, side, side), (outputs, inputs, 3, 3)))
    constants = {
        "weight": weight * np.float32(0.05),
        "taps": weight.transpose(2, 3, 1, 0).reshape(TAPS, inputs, outputs) * np.float32(0.05),
        "bias": random.standard_normal(outputs, dtype=np.float32),
    }
    graphs = {
        "Conv": ([helper.make_node("Conv", ["image", "weight", "bias"], ["out"], kernel_shape=[3, 3], pads=[1] * 4)], {"image": image}),
        "Conv3x3": (
            [helper.make_node("Conv3x3", ["rows", "taps", "bias"], ["out"], domain="acwface")],
            {"rows": image.transpose(0, 2, 3, 1)},
        ),
    }
    return _agreeing(shape, graphs, constants, {"Conv": (1, outputs, side, side), "Conv3x3": (1, side, side, outputs)}, threads)


def _agreeing(
    shape: Shape, graphs: dict[str, Graph], constants: dict[str, np.ndarray], sizes: dict[str, tuple[int, ...]], threads: int
) -> dict[str, Call]:
    """A call for each graph, once their outputs have been found equal; one that is not (1, O, H, W) like the first is (1, H, W, O)."""
    calls, expected = {}, None
    for name, (nodes, feeds) in graphs.items():
        calls[name], value = _bound(nodes, feeds, constants, sizes[name], threads)
        calls[name]()
        out = value.numpy()
        expected = out if expected is None else expected
        if not np.abs((out if out.shape == expected.shape else np.moveaxis(out, -1, 1)) - expected).max() < TOLERANCE:
            raise UserError(f"{name} differs from ONNX Runtime's own operator on {shape}")
    return calls


def _bound(
    nodes: list[onnx.NodeProto], feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray], shape: tuple[int, ...], threads: int
) -> tuple[Call, onnxruntime.OrtValue]:
    """A graph's call on arrays that are in place already, and its output."""
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in feeds.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("acwface", 1)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the other contenders' threads would be in the way
    options.register_custom_ops_library(str(library_path("ort")))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, np.float32)  # of its own; ortvalue_from_numpy only points
        value.update_inplace(np.ascontiguousarray(array, np.float32))
        binding.bind_ortvalue_input(name, value)
    out = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    binding.bind_ortvalue_output("out", out)
    return lambda: session.run_with_iobinding(binding), out

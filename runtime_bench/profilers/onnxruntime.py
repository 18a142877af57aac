"""Operator times of ONNX Runtime, from the profile that it writes itself."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from model.artifact import Artifact
from runtime_bench.profilers import WARMUP, OperatorTime
from runtime_bench.runtimes.onnxruntime import open_session, session_options

_SUFFIX = "_kernel_time"
_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose")
_MATRIX_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm")
BILINEAR_MACS = 4
"""Of one bilinear sample, as :mod:`model.cost` counts."""
DEFORM_TAPS = 9
"""Of the project's own operators: ``export/kernel/README.md``."""


def profile_onnxruntime(artifact: Artifact, tensor: np.ndarray, threads: int, runs: int) -> list[OperatorTime]:
    """See :mod:`runtime_bench.profilers`; in order of execution.

    Raises:
        UserError: as :func:`runtime_bench.runtimes.onnxruntime.open_session`.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        session = open_session(artifact, options)
        for _ in range(WARMUP + runs):
            session.run(None, {artifact.manifest.input.name: tensor})
        events = json.loads(Path(session.end_profiling()).read_bytes())
        weights = dict(_weight_counts(onnx.load(options.optimized_model_filepath)))
    return list(_operator_times(events, weights))


def _weight_counts(model: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Name of each node whose second input is constant, with how many of those numbers are not zero.

    ONNX Runtime pads channels with zero weights up to its vector length; that work is nobody's need and is not counted.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if len(node.input) > 1 and node.input[1] in constants:
            yield node.name, int(np.count_nonzero(numpy_helper.to_array(constants[node.input[1]])))


def _operator_times(events: Sequence[Mapping[str, Any]], weights: Mapping[str, int]) -> Iterator[OperatorTime]:
    timed = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_SUFFIX):
            timed[event["name"].removesuffix(_SUFFIX)].append(event)
    for name, own in timed.items():
        arguments = own[-1]["args"]
        inputs, outputs = (_shapes(arguments[side]) for side in ("input_type_shape", "output_type_shape"))
        yield OperatorTime(
            op=_kind(arguments["op_name"], inputs),
            name=name,
            ms=float(np.median([event["dur"] for event in own[WARMUP:]])) / 1e3,
            macs=count_macs(arguments["op_name"], inputs, outputs, weights.get(name)),
            bytes=sum(int(arguments[size]) for size in ("activation_size", "parameter_size", "output_size")),
        )


def _kind(op: str, inputs: Sequence[tuple[int, ...]]) -> str:
    """``Conv 3x3``, ``Conv 3x3 depthwise``: one kernel each, and of very different speed."""
    if op not in _CONVOLUTIONS:
        return op
    channels, kernel = inputs[1][1], inputs[1][2:]
    return f"{op} {'x'.join(map(str, kernel))}{' depthwise' * (channels == 1)}"


def _shapes(typed: Sequence[Mapping[str, Sequence[int]]]) -> list[tuple[int, ...]]:
    """``[{"float": [1, 3, 640, 640]}, ...]`` without the types."""
    return [tuple(shape) for entry in typed for shape in entry.values()]


def count_macs(
    op: str, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]], nonzero_weights: int | None = None
) -> int | None:
    """Multiply-accumulates of one operator from the shapes of what goes in and comes out.

    Args:
        op: ONNX operator, what ONNX Runtime fuses it into, or one of the project's own.
        inputs, outputs: shapes in the operator's order. A convolution's feature maps may be NCHW or NHWC.
        nonzero_weights: count these in place of the whole second input, where it is constant.

    Returns:
        ``None`` for operators that multiply no matrices.
    """
    if op in _CONVOLUTIONS:
        # Every weight acts once at every position: of the output, or of the input where the convolution is transposed.
        features, channels = (inputs[0], inputs[1][0]) if op == "ConvTranspose" else (outputs[0], inputs[1][0])
        return math.prod(features) // channels * _size(inputs[1], nonzero_weights)
    if op == "DeformConv":
        x, weight = inputs[0], inputs[1]
        positions = math.prod(outputs[0]) // weight[0]
        taps = math.prod(weight[2:])
        return positions * (_size(weight, nonzero_weights) + BILINEAR_MACS * taps * x[1])
    if op == "DeformSample":  # products of all taps in, their sum out
        return BILINEAR_MACS * DEFORM_TAPS * math.prod(outputs[0])
    if op in ("DeformConvTiled", "QDeformConvTiled"):
        taps, channels, features = inputs[2 if op == "DeformConvTiled" else 4]
        return math.prod(outputs[0]) // features * taps * channels * (features + BILINEAR_MACS)
    if op == "Conv3x3":
        return math.prod(outputs[0]) // inputs[1][2] * _size(inputs[1], nonzero_weights)
    if op == "QConv3x3":
        return math.prod(outputs[0]) // inputs[3][2] * math.prod(inputs[3])
    if op in _MATRIX_PRODUCTS:
        rows = math.prod(outputs[0][:-1])
        return math.prod(outputs[0]) * (math.prod(inputs[0]) // rows) if rows else 0
    return None


def _size(shape: tuple[int, ...], nonzero: int | None) -> int:
    return math.prod(shape) if nonzero is None else nonzero

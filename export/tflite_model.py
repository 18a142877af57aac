"""TFLite files as objects, and what is changed in them behind the converter."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_REDUCED_PRECISION = b"reduced_precision_support"
_DEQUANTIZE_FP16_VERSION = 3
_SELECTS = (schema.BuiltinOperator.SELECT, schema.BuiltinOperator.SELECT_V2)
_WEIGHTED = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)


def read_model(path: Path) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def write_model(model: schema.ModelT, path: Path) -> None:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    path.write_bytes(builder.Output())


def forbid_reduced_precision(model: schema.ModelT) -> None:
    """Take out the converter's permission to compute in half precision.

    XNNPACK reads it on ARM processors with half-precision arithmetic, and there a file would compute something else than what was compared.
    """
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _REDUCED_PRECISION]


def fix_shapes(model: schema.ModelT) -> None:
    """Say of every tensor that its shape is final: the converter leaves marks of unknown extents, though it knows all of them."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.shapeSignature = None


def trust_indices(model: schema.ModelT) -> None:
    """Take out what the converter puts before every gather: ONNX allows indices below zero, ours never are."""
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    for operator in graph.operators:
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.GATHER:
            continue
        chosen = makers.get(int(operator.inputs[1]))
        if chosen is not None and codes[chosen.opcodeIndex] in _SELECTS:  # index < 0, index + length, index
            operator.inputs = np.array([operator.inputs[0], chosen.inputs[2]], np.int32)
    _drop_unused_operators(graph)


def _drop_unused_operators(graph: schema.SubGraphT) -> None:
    before = None
    while before != len(graph.operators):
        before = len(graph.operators)
        used = {int(tensor) for operator in graph.operators for tensor in operator.inputs} | set(map(int, graph.outputs))
        graph.operators = [operator for operator in graph.operators if used.intersection(map(int, operator.outputs))]


def store_weights_as_float16(model: schema.ModelT) -> None:
    """Halve the file: filters and biases become float16, each behind a DEQUANTIZE, and arithmetic stays float32.

    Runtimes widen them once, on loading. Biases too, few as they are: XNNPACK leaves a convolution alone that has only one of the two so.
    """
    (graph,) = model.subgraphs
    model.operatorCodes.append(
        schema.OperatorCodeT(
            builtinCode=schema.BuiltinOperator.DEQUANTIZE,
            deprecatedBuiltinCode=schema.BuiltinOperator.DEQUANTIZE,
            version=_DEQUANTIZE_FP16_VERSION,
        )
    )
    codes = [code.builtinCode for code in model.operatorCodes]
    weights = {int(tensor) for operator in graph.operators if codes[operator.opcodeIndex] in _WEIGHTED for tensor in operator.inputs[1:]}
    dequantize = []
    for index in sorted(weights - {-1}):
        wide = graph.tensors[index]
        data = model.buffers[wide.buffer].data
        if wide.type != schema.TensorType.FLOAT32 or data is None or not len(data):
            continue
        # Beyond its range a number would become infinite, which the comparison with torch would report.
        narrow = np.frombuffer(bytes(data), np.float32).astype(np.float16)
        model.buffers.append(schema.BufferT(data=narrow.view(np.uint8)))
        graph.tensors.append(
            schema.TensorT(shape=wide.shape, type=schema.TensorType.FLOAT16, buffer=len(model.buffers) - 1, name=wide.name + b"_float16")
        )
        wide.buffer = 0  # nothing stored: the operator computes it
        dequantize.append(
            schema.OperatorT(
                opcodeIndex=len(model.operatorCodes) - 1,
                inputs=np.array([len(graph.tensors) - 1], np.int32),
                outputs=np.array([index], np.int32),
            )
        )
    graph.operators = dequantize + graph.operators
    _drop_unused_buffers(model)


def _drop_unused_buffers(model: schema.ModelT) -> None:
    holders = [*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or [])]
    used = sorted({0, *(holder.buffer for holder in holders)})  # buffer 0 is the empty one
    place = {old: new for new, old in enumerate(used)}
    for holder in holders:
        holder.buffer = place[holder.buffer]
    model.buffers = [model.buffers[old] for old in used]

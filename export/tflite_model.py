"""TFLite files as objects, and what is changed in them behind the converter."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export.tflite_routes import STAND_IN
from model.deform_conv import TAPS
from model.errors import UserError

_IDENTIFIER = b"TFL3"
_REDUCED_PRECISION = b"reduced_precision_support"
_DEQUANTIZE_FP16_VERSION = 3
_SELECTS = (schema.BuiltinOperator.SELECT, schema.BuiltinOperator.SELECT_V2)
_WEIGHTED = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)


def read_model(path: Path) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def pack_model(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def write_model(model: schema.ModelT, path: Path) -> None:
    path.write_bytes(pack_model(model))


def forbid_reduced_precision(model: schema.ModelT) -> None:
    """Take out the converter's permission to compute in half precision.

    XNNPACK reads it on ARM processors with half-precision arithmetic, and there a file would compute something else than what was compared.
    """
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _REDUCED_PRECISION]


def add_metadata(model: schema.ModelT, name: str, content: bytes) -> None:
    """Put ``content`` into the file under ``name``."""
    model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
    model.metadata.append(schema.MetadataT(name=name, buffer=len(model.buffers) - 1))


def fix_shapes(model: schema.ModelT) -> None:
    """Say of every tensor that its shape is final: the converter leaves marks of unknown extents, though it knows all of them."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.shapeSignature = None


def trust_indices(model: schema.ModelT) -> None:
    """Take out what the converter puts before every gather: ONNX allows indices below zero, ours never are. And gathers of everything."""
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    same: dict[int, int] = {}
    for operator in graph.operators:
        operator.inputs = np.array([same.get(int(tensor), int(tensor)) for tensor in operator.inputs], np.int32)
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.GATHER:
            continue
        source, index = map(int, operator.inputs)
        chosen = makers.get(index)
        if chosen is not None and codes[chosen.opcodeIndex] in _SELECTS:  # index < 0, index + length, index
            operator.inputs = np.array([source, chosen.inputs[2]], np.int32)
        values = _values(model, graph.tensors[index])
        if values is not None and np.array_equal(values, np.arange(graph.tensors[source].shape[operator.builtinOptions.axis])):
            same[int(operator.outputs[0])] = source
    _drop_unused_operators(graph)


def fuse_relu(model: schema.ModelT) -> None:
    """Let convolutions apply the ReLU behind them, or behind the concatenation of all of them: XNNPACK has none of its own for integers."""
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    read = Counter(int(tensor) for operator in graph.operators for tensor in operator.inputs) + Counter(map(int, graph.outputs))
    same: dict[int, int] = {}
    for operator in graph.operators:
        operator.inputs = np.array([same.get(int(tensor), int(tensor)) for tensor in operator.inputs], np.int32)
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.RELU:
            continue
        source = int(operator.inputs[0])
        tensors = [source]
        if source in makers and codes[makers[source].opcodeIndex] == schema.BuiltinOperator.CONCATENATION:
            tensors += map(int, makers[source].inputs)
        before = [makers.get(tensor) for tensor in tensors]
        convolutions = before[1:] or before
        if any(read[tensor] != 1 for tensor in tensors) or not all(
            made is not None
            and codes[made.opcodeIndex] in _WEIGHTED
            and made.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
            for made in convolutions
        ):
            continue
        for made in convolutions:
            made.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
        same[int(operator.outputs[0])] = source
    _drop_unused_operators(graph)


def _drop_unused_operators(graph: schema.SubGraphT) -> None:
    before = None
    while before != len(graph.operators):
        before = len(graph.operators)
        used = {int(tensor) for operator in graph.operators for tensor in operator.inputs} | set(map(int, graph.outputs))
        graph.operators = [operator for operator in graph.operators if used.intersection(map(int, operator.outputs))]


def place_deformable_operators(model: schema.ModelT) -> None:
    """Put CUSTOM operators where route ``custom`` has left convolutions that stand for them.

    Their names, inputs and options are those that ``export/kernel/README.md`` documents.

    Raises:
        UserError: the converter changed one beyond recognition.
    """
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    opcodes = {}
    for operator in graph.operators:
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.CONV_2D:
            continue
        joined, weight, bias = map(int, operator.inputs)
        filters = _values(model, graph.tensors[weight])  # (O, k, k, I)
        if filters is None or filters[0, 0, 0, 0] != STAND_IN:
            continue
        _, limit, slope = map(float, filters[0, 0, 0, :3])
        join = makers.get(joined)
        if (
            join is None
            or codes[join.opcodeIndex] != schema.BuiltinOperator.CONCATENATION
            or [graph.tensors[int(tensor)].shape[3] for tensor in join.inputs] != [3 * TAPS, filters.shape[3] - 3 * TAPS]
            or operator.builtinOptions.fusedActivationFunction != schema.ActivationFunctionType.NONE
        ):
            raise UserError("onnx2tf changed what stands for a deformable convolution; take another --dcn, and report the checkpoint")
        inputs = [*map(int, join.inputs), bias]
        name = "DeformSample"
        if filters.shape[1] == 3:
            name = "DeformConvTiled"
            by_tap = filters[..., 3 * TAPS :].transpose(1, 2, 3, 0).reshape(TAPS, -1, len(filters))
            inputs.insert(2, _add_constant(model, by_tap, graph.tensors[weight].name))
        if name not in opcodes:
            opcodes[name] = len(model.operatorCodes)
            code = schema.BuiltinOperator.CUSTOM
            model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, customCode=name, version=1))
        operator.opcodeIndex, operator.inputs = opcodes[name], np.array(inputs, np.int32)
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
        operator.customOptions = np.frombuffer(struct.pack("<4i2f", 1, 0, 0, len(filters), limit, slope), np.uint8)
    _drop_unused_operators(graph)
    _drop_unused_buffers(model)


def _values(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """A constant's, float32 or int32; ``None`` for what is computed, or of another kind."""
    data = model.buffers[tensor.buffer].data
    kind = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT32: np.int32}.get(tensor.type)
    return None if kind is None or data is None or not len(data) else np.frombuffer(bytes(data), kind).reshape(tensor.shape)


def _add_constant(model: schema.ModelT, values: np.ndarray, name: bytes) -> int:
    """The number of a new float32 or float16 tensor."""
    kind = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.float16): schema.TensorType.FLOAT16}[values.dtype]
    model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
    (graph,) = model.subgraphs
    graph.tensors.append(schema.TensorT(shape=np.array(values.shape, np.int32), type=kind, buffer=len(model.buffers) - 1, name=name))
    return len(graph.tensors) - 1


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
        values = _values(model, wide)
        if values is None or values.dtype != np.float32:
            continue
        # Beyond its range a number would become infinite, which the comparison with torch would report.
        narrow = _add_constant(model, values.astype(np.float16), wide.name + b"_float16")
        wide.buffer = 0  # nothing stored: the operator computes it
        dequantize.append(
            schema.OperatorT(
                opcodeIndex=len(model.operatorCodes) - 1,
                inputs=np.array([narrow], np.int32),
                outputs=np.array([index], np.int32),
            )
        )
    graph.operators = dequantize + graph.operators
    _drop_unused_buffers(model)


def drop_unused_tensors(model: schema.ModelT) -> None:
    """Of the only graph, and the buffers that nobody holds then."""
    (graph,) = model.subgraphs
    named = [*graph.inputs, *graph.outputs, *(tensor for operator in graph.operators for tensor in (*operator.inputs, *operator.outputs))]
    used = sorted({int(tensor) for tensor in named} - {-1})
    place = {old: new for new, old in enumerate(used)} | {-1: -1}
    graph.tensors = [graph.tensors[old] for old in used]
    for holder in (graph, *graph.operators):
        holder.inputs, holder.outputs = (np.array([place[int(t)] for t in side], np.int32) for side in (holder.inputs, holder.outputs))
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = place[entry.tensorIndex]
    _drop_unused_buffers(model)


def _drop_unused_buffers(model: schema.ModelT) -> None:
    holders = [*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or [])]
    used = sorted({0, *(holder.buffer for holder in holders)})  # buffer 0 is the empty one
    place = {old: new for new, old in enumerate(used)}
    for holder in holders:
        holder.buffer = place[holder.buffer]
    model.buffers = [model.buffers[old] for old in used]

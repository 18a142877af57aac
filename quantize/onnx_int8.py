"""INT8 for ONNX Runtime: QuantizeLinear and DequantizeLinear round what is to be integer (QDQ), by ONNX Runtime's own quantizer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.deform_routes import ROUTES
from export.onnx_export import NO_ROUTE, convert_to_onnx, simplify
from export.rewrites import apply_rewrites
from model.artifact import Artifact, RuntimeSpec
from model.checkpoint import Checkpoint
from quantize.calibration import Range
from quantize.network import FIRST
from quantize.weights import quantize_weight
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.runtimes.libraries import library_path
from runtime_bench.runtimes.onnxruntime import session_options

_ACTIVATIONS = ("LeakyRelu", "Relu", "Clip")
_INTEGER = ("Conv", "MatMul", *_ACTIVATIONS, "Concat", "Resize", "Add", "Transpose")
"""Operators that are computed in integers. Attention's products and sigmoids are not: measured, they got slower and worse. ONNX Runtime has
no ELU for integers."""
_OURS = {"DeformConvTiled": "QDeformConvTiled", "Conv3x3": "QConv3x3"}
"""Operators of the kernel that have a form in integers."""
_IMAGE = {"DeformConvTiled": 1, "Conv3x3": 0}
"""Which of their inputs is the image; weight and bias follow."""
_WEIGHTED = {"Conv": 1, "MatMul": 1, "DeformConv": 1, "DeformConvTiled": 2, "Conv3x3": 1}
"""Which input of an operator is its weight."""
_FOLLOWING = (*_ACTIVATIONS, "Transpose", "Reshape", "Concat")
"""Operators that stay in float with what they read."""
_STORED = {"DeformConv": 0, "DeformConvTiled": 2}
"""Operators that are computed in float, whose weights are stored in integers nevertheless, and the axis of their output channels."""


class OnnxInt8:
    """A :class:`quantize.network.Int8Network`; layers have the names of their outputs.

    Args:
        checkpoint: with channels equalised.
        dcn: route of its deformable layers, ``none`` without.
        size: (height, width) of the input in pixels, ``None`` for any.
    """

    layout = "NCHW"

    def __init__(self, checkpoint: Checkpoint, dcn: str, size: tuple[int, int] | None) -> None:
        needs = ROUTES[dcn].needs if dcn != "none" else NO_ROUTE
        runtime = RuntimeSpec("onnxruntime", needs.onnxruntime, needs.library)
        # ONNX Runtime has no kernels for activations of 16 bits: such a file would be computed in float, operator by operator.
        self.precisions = {"int8": runtime}
        model = apply_rewrites(checkpoint.detector, dcn)
        self.model = simplify(convert_to_onnx(model, checkpoint.detector.config.variant, needs.opset, size))
        self._constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._weights = {node.output[0]: node.input[1] for node in self.model.graph.node if node.op_type in _WEIGHTED}
        self.layers = tuple(node.output[0] for node in self.model.graph.node if self._integer(node) and node.op_type in _WEIGHTED)
        heads = [name for name in self.layers if self._weights[name].startswith("merged_heads")]
        self.kept = (*self.layers[:FIRST], *heads)

    def _integer(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "MatMul":
            return node.input[1] in self._constants
        if node.op_type in _OURS:
            return True
        # Attention over channels is a convolution of a vector: nothing to gain.
        return node.op_type in _INTEGER and not (node.op_type == "Conv" and len(self._constants[node.input[1]].dims) == 3)

    def detectors(self, artifact: Artifact) -> list[FaceDetector]:
        return [artifact_detector(artifact, torch.get_num_threads())]

    def activations(self, tensors: Iterable[np.ndarray]) -> Iterator[Iterable[tuple[str, np.ndarray]]]:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        outputs = {output.name for output in model.graph.output}
        for node in model.graph.node:
            names = [name for name in node.output if name and name not in outputs]
            model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        options = session_options(torch.get_num_threads())
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # which would fuse activations away
        if (library := self.precisions["int8"].library) is not None:
            options.register_custom_ops_library(str(library_path(library)))
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
        for tensor in tensors:
            yield zip((*names, "image"), (*session.run(names, {"image": tensor}), tensor), strict=True)

    def write(
        self,
        path: Path,
        ranges: Mapping[str, Range],
        kept: Collection[str] = (),
        only: Collection[str] | None = None,
        precision: str = "int8",
    ) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        # Types are enough for the quantizer, and operators of ours hide them from ONNX's inference.
        model.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ranges if name != "image"
        )
        excluded = self._excluded(kept, only)
        ours = {node.name for node in model.graph.node if node.op_type in _OURS}.difference(excluded)
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, {name: tuple(map(np.float32, ends)) for name, ends in ranges.items()}),
            nodes_to_quantize=[],
            nodes_to_exclude=excluded,
            op_types_to_quantize=_INTEGER,
            extra_options={},
        )
        for node in model.graph.node:
            if node.name in ours:
                quantizer.quantize_activation_tensor(node.input[_IMAGE[node.op_type]])
                if node.op_type == "DeformConvTiled":
                    quantizer.quantize_activation_tensor(node.output[0])
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        quantized = quantizer.model.model
        make_integer(quantized, ours)
        if only is None:
            store_as_integers(quantized)
        del quantized.graph.value_info[:]
        _shorten_names(quantized)
        onnx.save(quantized, path)

    def _excluded(self, kept: Collection[str], only: Collection[str] | None) -> list[str]:
        """Names of the nodes that stay in float: with a layer, the activation behind it, and what only moves the result.

        ONNX Runtime would otherwise round that layer's weights when it loads the file, with one scale for all channels: it takes a
        convolution between integer tensors for one that somebody forgot.
        """
        excluded, floats = [], set()
        for node in self.model.graph.node:
            name = node.output[0]
            layer = name in self.layers
            if (
                not self._integer(node)
                or (layer and (name in kept or (only is not None and name not in only)))
                or (node.op_type in _FOLLOWING and floats.issuperset(set(node.input).difference(self._constants)))
                or (not layer and only is not None)
            ):
                excluded.append(node.name)
                floats.update(node.output)
        return excluded


def make_integer(model: onnx.ModelProto, names: Collection[str]) -> None:
    """The nodes of these names, operators of the kernel between DequantizeLinear and QuantizeLinear, in one operator on integers each.

    ONNX Runtime does the like for its own operators when it loads a file.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    before = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    behind = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.name not in names:
            continue
        image = _IMAGE[node.op_type]
        weight, bias = node.input[image + 1 :]
        values, scale = quantize_weight(numpy_helper.to_array(constants[weight]), 2)
        parts = {f"{weight}_quantized": values, f"{weight}_scale": scale}
        graph.initializer.extend(numpy_helper.from_array(part, name) for name, part in parts.items() if name not in constants)
        constants.update(dict.fromkeys(parts))
        node.input[image:] = [*before[node.input[image]].input, *parts, bias]
        if node.op_type == "DeformConvTiled":
            rounding = behind[node.output[0]]
            node.input.extend(rounding.input[1:])
            node.output[0] = rounding.output[0]
            rounding.op_type = ""
            kept = ("negative_slope", "offset_limit")
            attributes = [attribute for attribute in node.attribute if attribute.name in kept]
            del node.attribute[:]
            node.attribute.extend(attributes)
        node.op_type = _OURS[node.op_type]
    _drop_unused(model)


def _drop_unused(model: onnx.ModelProto) -> None:
    """Roundings that have become part of operators, and constants that nothing reads."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    nodes = [node for node in graph.node if node.op_type and (node.op_type != "DequantizeLinear" or node.output[0] in read)]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def store_as_integers(model: onnx.ModelProto) -> None:
    """Weights of deformable operators as int8 with a scale for each output channel, widened when the model runs."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, widened = [], {}
    for node in model.graph.node:
        if node.op_type in _STORED:
            place, axis = _WEIGHTED[node.op_type], _STORED[node.op_type]
            name = node.input[place]
            if name not in widened:  # layers of one size share the matrix that adds taps up
                weight = constants[name]
                values, scale = quantize_weight(numpy_helper.to_array(weight), axis)
                names = [f"{name}_{part}" for part in ("quantized", "scale", "zero", "widened")]
                parts = (values, scale, np.zeros(len(scale), np.int8))
                model.graph.initializer.extend(numpy_helper.from_array(part, name) for part, name in zip(parts, names, strict=False))
                nodes.append(onnx.helper.make_node("DequantizeLinear", names[:3], names[3:], axis=axis))
                widened[name] = names[3]
                model.graph.initializer.remove(weight)
            node.input[place] = widened[name]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _shorten_names(model: onnx.ModelProto) -> None:
    """Numbers for the names of everything inside: the quantizer's are long, and a tenth of so small a file."""
    graph = model.graph
    short = {value.name: value.name for value in (*graph.input, *graph.output)}

    def name(long: str) -> str:
        return short.setdefault(long, f"{len(short)}") if long else ""

    for tensor in graph.initializer:
        tensor.name = name(tensor.name)
    for node in graph.node:
        node.input[:] = [name(value) for value in node.input]
        node.output[:] = [name(value) for value in node.output]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""

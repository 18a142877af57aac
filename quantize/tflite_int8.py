"""INT8 for LiteRT: tensors and operators of a converted file, one by one, by LiteRT's quantization specification
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).

Neither library does it. ai-edge-quantizer knows no LEAKY_RELU, so it goes back to float behind every convolution of these networks, and it
averages the extremes of the photographs; onnx2tf makes everything integer or nothing, sampling coordinates too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate

from export.rewrites import MOBILE_REWRITES, apply_rewrites
from export.tflite_export import MINIMUM_LITERT, both_ways, convert_to_tflite, describe
from export.tflite_model import drop_unused_tensors, pack_model, write_model
from export.tflite_routes import TFLITE_ROUTES
from model.artifact import REFERENCE, Artifact, RuntimeSpec
from model.checkpoint import Checkpoint
from quantize.calibration import Range
from quantize.network import FIRST
from quantize.weights import quantize_weight
from runtime_bench.detect import FaceDetector
from runtime_bench.runtimes.libraries import library_path
from runtime_bench.runtimes.litert import quiet_litert

_Op = schema.BuiltinOperator
_AXIS = {_Op.CONV_2D: 0, _Op.DEPTHWISE_CONV_2D: 3}
"""Operators with weights, and the weights' axis of output channels."""
_MOVING = {
    _Op.CONCATENATION, _Op.DEPTH_TO_SPACE, _Op.GATHER, _Op.MAXIMUM, _Op.MAX_POOL_2D, _Op.MINIMUM, _Op.PAD, _Op.REDUCE_MAX, _Op.RESHAPE,
    _Op.RESIZE_NEAREST_NEIGHBOR, _Op.SLICE, _Op.STRIDED_SLICE, _Op.TRANSPOSE,
}  # fmt: skip
"""Operators that only choose and move values: one scale for all that goes in and comes out."""
_COMPUTING = {
    _Op.ABS, _Op.ADD, _Op.ELU, _Op.LEAKY_RELU, _Op.MEAN, _Op.MUL, _Op.RELU, _Op.RELU6, _Op.RELU_N1_TO_1, _Op.SUB, _Op.SUM,
}  # fmt: skip
"""Operators whose inputs and outputs may each have a scale of its own."""
_COORDINATES = (_Op.FLOOR, _Op.CAST)
"""What they read is a place in a feature map: eight bits tell 256 apart, a map is 80 wide and samples lie between its pixels."""
_VERSIONS = {
    8: {_Op.CONV_2D: 3, _Op.DEPTHWISE_CONV_2D: 3, _Op.ELU: 1, _Op.LEAKY_RELU: 1, _Op.QUANTIZE: 1, _Op.RELU_N1_TO_1: 1, _Op.RESHAPE: 1},
    16: {
        **dict.fromkeys((_Op.RESHAPE, _Op.STRIDED_SLICE), 1),
        **dict.fromkeys((_Op.LEAKY_RELU, _Op.QUANTIZE), 2),
        **dict.fromkeys((_Op.CONV_2D, _Op.GATHER, _Op.MAXIMUM, _Op.MINIMUM, _Op.MUL, _Op.RESIZE_NEAREST_NEIGHBOR, _Op.SLICE), 4),
        **dict.fromkeys((_Op.DEPTHWISE_CONV_2D, _Op.SUB, _Op.TRANSPOSE), 5),
    },
}
"""Of operators on activations of so many bits, where they are not 2, or 3 with 16."""
_TYPES = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}
"""Of activations, by bits."""
_NARROW = {_Op.ELU, _Op.SUM}
"""Operators that LiteRT has for 8 bits and not for 16; two others are spelt out by :func:`_spell_out`."""


class TfliteInt8:
    """A :class:`quantize.network.Int8Network`; layers have the names of their outputs.

    Args:
        checkpoint: with channels equalised.
        dcn: route of its deformable layers, ``none`` without.
        size: (height, width) of the input in pixels.
    """

    layout = "NHWC"

    def __init__(self, checkpoint: Checkpoint, dcn: str, size: tuple[int, int]) -> None:
        library = TFLITE_ROUTES[dcn].needs.library if dcn != "none" else None
        self.library = library
        self.precisions = dict.fromkeys(("int8", "int8io", "int16"), RuntimeSpec("litert", MINIMUM_LITERT, library))
        self._checkpoint = checkpoint
        deployed = apply_rewrites(checkpoint.detector, dcn, (), TFLITE_ROUTES, MOBILE_REWRITES)
        self.model = convert_to_tflite(deployed, checkpoint.detector.config.variant, size, lambda stage: None)
        self._codes = [code.builtinCode for code in self.model.operatorCodes]
        (graph,) = self.model.subgraphs
        self.layers = tuple(_name(graph, operator) for operator in graph.operators if self._codes[operator.opcodeIndex] in _AXIS)
        # A bounded network is for processors that compute in nothing but integers: what others have in float has 16 bits there.
        self._throughout = dcn == "bounded"
        self.kept = self.layers[:FIRST] if self._throughout else (*self.layers[:FIRST], *self._heads())

    def _heads(self) -> list[str]:
        """Layers with no other behind them."""
        (graph,) = self.model.subgraphs
        heads, followed = [], set()
        for operator in reversed(graph.operators):
            layer = self._codes[operator.opcodeIndex] in _AXIS
            if followed.intersection(map(int, operator.outputs)):
                followed.update(map(int, operator.inputs))
            elif layer:
                heads.append(_name(graph, operator))
                followed.update(map(int, operator.inputs))
        return heads

    def activations(self, tensors: Iterable[np.ndarray]) -> Iterator[Iterable[tuple[str, np.ndarray]]]:
        (graph,) = self.model.subgraphs
        made = {int(tensor) for operator in graph.operators for tensor in operator.outputs} | {int(graph.inputs[0])}
        wanted = [index for index in sorted(made) if graph.tensors[index].type == schema.TensorType.FLOAT32]
        delegates = [load_delegate(str(library_path(self.library)))] if self.library else []
        with quiet_litert():
            interpreter = Interpreter(
                model_content=pack_model(self.model),
                num_threads=torch.get_num_threads(),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
                experimental_delegates=delegates,
            )
            interpreter.allocate_tensors()
        names = {index: graph.tensors[index].name.decode() for index in wanted}
        for tensor in tensors:
            interpreter.set_tensor(int(graph.inputs[0]), np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)))
            interpreter.invoke()
            yield ((name, interpreter.get_tensor(index)) for index, name in names.items())

    def detectors(self, artifact: Artifact) -> Iterator[FaceDetector]:
        return both_ways(artifact)

    def write(
        self,
        path: Path,
        ranges: Mapping[str, Range],
        kept: Collection[str] = (),
        only: Collection[str] | None = None,
        precision: str = "int8",
    ) -> None:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(pack_model(self.model), 0))
        if precision == "int16":
            _spell_out(model)
            bits = dict.fromkeys(self.layers, 16)
        else:
            bits = dict.fromkeys(kept, 16) if self._throughout else {}
        _Pass(model, ranges, bits).run(() if self._throughout else kept, only, integer_ends=precision == "int8io")
        _shorten_names(model)
        if (path.parent / REFERENCE).is_file():
            describe(model, self._checkpoint, path.parent.name, path.parent / REFERENCE)
        write_model(model, path)


def _spell_out(model: schema.ModelT) -> None:
    """Write DEPTH_TO_SPACE and RELU_N1_TO_1, which LiteRT does not have for 16 bits, by operators that it has."""
    (graph,) = model.subgraphs

    def tensor(shape: Sequence[int], values: np.ndarray | None = None) -> int:
        kind = schema.TensorType.INT32 if values is not None and values.dtype == np.int32 else schema.TensorType.FLOAT32
        model.buffers.append(schema.BufferT(data=None if values is None else np.frombuffer(values.tobytes(), np.uint8)))
        graph.tensors.append(schema.TensorT(shape=np.int32(shape), type=kind, buffer=len(model.buffers) - 1, name=b"spelt_out"))
        return len(graph.tensors) - 1

    def operator(code: int, inputs: Sequence[int], output: int) -> schema.OperatorT:
        model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1))
        return schema.OperatorT(opcodeIndex=len(model.operatorCodes) - 1, inputs=np.int32(inputs), outputs=np.int32([output]))

    def reshape(source: int, output: int) -> schema.OperatorT:
        shape = np.int32(graph.tensors[output].shape)
        return operator(_Op.RESHAPE, [source, tensor([len(shape)], shape)], output)

    done = []
    for old in graph.operators:
        code, (source, *_), (output, *_) = model.operatorCodes[old.opcodeIndex].builtinCode, map(int, old.inputs), map(int, old.outputs)
        if code == _Op.DEPTH_TO_SPACE:
            _, height, width, _ = map(int, graph.tensors[source].shape)
            block, channels = int(old.builtinOptions.blockSize), int(graph.tensors[output].shape[3])
            apart, together = tensor([height, width, block, block, channels]), tensor([height, block, width, block, channels])
            order = tensor([5], np.int32([0, 2, 1, 3, 4]))
            done += [reshape(source, apart), operator(_Op.TRANSPOSE, [apart, order], together), reshape(together, output)]
        elif code == _Op.RELU_N1_TO_1:
            above = tensor(graph.tensors[source].shape)
            done.append(operator(_Op.MAXIMUM, [source, tensor([], np.float32([-1]))], above))
            done.append(operator(_Op.MINIMUM, [above, tensor([], np.float32([1]))], output))
        else:
            done.append(old)
    graph.operators = done


class _Pass:
    """One model on its way from float to integers; tensors and operators are numbered as in the file.

    Weights have 8 bits. Activations have those of the layer that reads them, and otherwise of what made them: 8, or 16 and then a zero
    point of 0.

    Args:
        model: changed in place.
        ranges: of the activations, by name.
        bits: of the inputs and outputs of layers, by name, where they are not 8.
    """

    def __init__(self, model: schema.ModelT, ranges: Mapping[str, Range], bits: Mapping[str, int]) -> None:
        self.model, (self.graph,) = model, model.subgraphs
        self.codes = [code.builtinCode for code in model.operatorCodes]
        self.ranges = ranges
        self.layer_bits = bits
        self.constants = _constants(model)
        self.integer: dict[int, dict[int, int]] = {}
        """The integer tensors of a float one, by their bits; the first is what its maker gives."""
        self.float = set(self.activations(self.graph.inputs))
        """Float tensors that something computes."""
        self.shared: dict[int, Range] = {}
        self.done: list[schema.OperatorT] = []

    def code(self, operator: schema.OperatorT) -> int:
        return self.codes[operator.opcodeIndex]

    def activations(self, tensors: Iterable[int]) -> list[int]:
        return [i for i in map(int, tensors) if self._is_float(i) and i not in self.constants]

    def _is_float(self, tensor: int) -> bool:
        return tensor >= 0 and self.graph.tensors[tensor].type == schema.TensorType.FLOAT32

    def run(self, kept: Collection[str], only: Collection[str] | None, integer_ends: bool) -> None:
        """Args:
        kept, only: see :meth:`quantize.network.Int8Network.write`.
        integer_ends: whether the network's input and outputs become integer too.
        """
        becoming = self._choose(kept, only, integer_ends)
        self.shared = self._share_ranges(becoming)
        if integer_ends:
            self._take_integers()
        for operator in self.graph.operators:
            inputs, outputs = self.activations(operator.inputs), self.activations(operator.outputs)
            if id(operator) in becoming:
                bits = becoming[id(operator)]
                for tensor in inputs:
                    self._need_integer(tensor, bits)
                self._convert(operator, bits)
            else:
                for tensor in inputs:
                    self._need_float(tensor)
                if self.code(operator) == _Op.CUSTOM:
                    self._store_weight(operator)
                self.float.update(outputs)
            self.done.append(operator)
        for tensor in self.activations(self.graph.outputs):
            if integer_ends:
                self._need_integer(tensor, 8)
            else:
                self._need_float(tensor)
        if integer_ends:
            self._name_ends()
        self.graph.operators = self.done
        drop_unused_tensors(self.model)

    def _take_integers(self) -> None:
        """Let integers come in."""
        (tensor,) = map(int, self.graph.inputs)
        self.float.discard(tensor)
        if self.layer_bits:  # a zero point of 0, so that it can be widened
            low, high = self.shared[tensor]
            self.shared[tensor] = min(low, -high * 128 / 127), max(high, -low * 127 / 128)
        self.integer[tensor] = {8: self._integer_tensor(tensor, 8)}

    def _name_ends(self) -> None:
        """Let the integer tensors be the network's input and outputs, by the names of the float ones."""
        ends = {int(tensor) for tensor in (*self.graph.inputs, *self.graph.outputs)}
        for tensor in ends:
            integer = self.graph.tensors[self.integer[tensor][8]]
            integer.name, self.graph.tensors[tensor].name = self.graph.tensors[tensor].name, integer.name
        self.graph.inputs, self.graph.outputs = (
            np.int32([self.integer[int(tensor)][8] for tensor in side]) for side in (self.graph.inputs, self.graph.outputs)
        )
        for signature in self.model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = self.integer[entry.tensorIndex][8]

    def _choose(self, kept: Collection[str], only: Collection[str] | None, integer_ends: bool) -> dict[int, int]:
        """Which operators become integer, by identity, and with how many bits: convolutions, and what is fed by them."""
        coordinates: set[int] = set()
        weighted: set[int] = set()
        """Tensors with a convolution behind them; what has none is decoding, and stays in float unless the outputs are integers."""
        for operator in reversed(self.graph.operators):
            outputs = set(map(int, operator.outputs))
            if self.code(operator) in _COORDINATES or (outputs & coordinates and self.code(operator) not in _AXIS):
                coordinates |= outputs | set(self._moved_by(operator))
            if self.code(operator) in (*_AXIS, _Op.CUSTOM) or outputs & weighted:
                weighted |= set(self.activations(operator.inputs))
        made = {int(tensor): operator for operator in self.graph.operators for tensor in operator.outputs}
        # What a convolution gives is integer all the same; it is widened before it becomes a place.
        coordinates = {tensor for tensor in coordinates if tensor not in made or self.code(made[tensor]) not in _AXIS}

        becoming: dict[int, int] = {}
        first = next(_name(self.graph, operator) for operator in self.graph.operators if self.code(operator) in _AXIS)
        # The photograph is rounded where it comes in, unless the first layer wants it as it is.
        photograph = dict.fromkeys(map(int, self.graph.inputs), self.layer_bits.get(first, 8))
        integer = photograph if only is None and first not in kept else {}
        # Pixels are gathered as integers, and weighed and added up in float: every rounding on that way costs small faces.
        sampled: set[int] = set()
        for operator in self.graph.operators:
            code, inputs, outputs = self.code(operator), self.activations(operator.inputs), self.activations(operator.outputs)
            name = _name(self.graph, operator)
            if code not in _AXIS and sampled.intersection(inputs):
                sampled.update(outputs)
                continue
            bits = self.layer_bits.get(name, 8) if code in _AXIS else min((integer[i] for i in inputs if i in integer), default=8)
            if code in _AXIS:
                becomes = int(operator.inputs[1]) in self.constants and name not in kept and (only is None or name in only)
            elif only is not None or not outputs or coordinates & {*inputs, *outputs} or (bits == 16 and code in _NARROW):
                becomes = False
            elif code in _MOVING:
                becomes = bool(inputs) and integer.keys() >= set(inputs)
            else:
                sigmoid = code == _Op.LOGISTIC and (integer_ends or bool(weighted & set(outputs)))
                becomes = bool(integer.keys() & inputs) and (code in _COMPUTING or sigmoid)
            if becomes:
                becoming[id(operator)] = bits
                if code == _Op.GATHER:
                    sampled.update(outputs)
                else:
                    integer |= dict.fromkeys(outputs, bits)
        return becoming

    def _moved_by(self, operator: schema.OperatorT) -> list[int]:
        inputs = self.activations(operator.inputs)
        return inputs[:1] if self.code(operator) == _Op.GATHER else inputs

    def _share_ranges(self, becoming: Mapping[int, int]) -> dict[int, Range]:
        """The range of each activation: one for all that an operator only moves."""
        parent = list(range(len(self.graph.tensors)))

        def root(tensor: int) -> int:
            while parent[tensor] != tensor:
                tensor = parent[tensor]
            return tensor

        groups: dict[int, Range] = {}
        for operator in self.graph.operators:
            if id(operator) in becoming and self.code(operator) in _MOVING:
                first, *others = self.activations((*operator.inputs, *operator.outputs))
                for other in others:
                    parent[root(other)] = root(first)
        # An output has the range of a probability even where all that were seen have been small.
        fixed = {index for index in map(int, self.graph.outputs) if self.graph.tensors[index].name == b"scores"}
        fixed |= {int(op.outputs[0]) for op in self.graph.operators if id(op) in becoming and self.code(op) == _Op.LOGISTIC}
        for tensor in self.activations(range(len(self.graph.tensors))):
            low, high = _SIGMOID if tensor in fixed else self.ranges.get(self.graph.tensors[tensor].name.decode(), (0.0, 0.0))
            before = groups.get(root(tensor), (0.0, 0.0))
            groups[root(tensor)] = min(low, before[0]), max(high, before[1])
        return {tensor: groups[root(tensor)] for tensor in self.activations(range(len(self.graph.tensors)))}

    def _need_integer(self, tensor: int, bits: int) -> None:
        forms = self.integer.setdefault(tensor, {})
        if bits in forms:
            return
        if bits == 16 and forms:  # LiteRT quantizes again from 16 bits to 8 and not the other way
            given = self.graph.tensors[forms[8]].quantization
            if given.zeroPoint[0] == 0:
                forms[16] = self._add(self.graph.tensors[tensor], None, _TYPES[16], given.scale, [0])
                self._insert(_Op.CAST, forms[8], forms[16], bits)
                return
            self._need_float(tensor)
        source = tensor if tensor in self.float else forms[16]
        forms[bits] = self._integer_tensor(tensor, bits)
        self._insert(_Op.QUANTIZE, source, forms[bits], bits)

    def _need_float(self, tensor: int) -> None:
        if tensor not in self.float:
            self.float.add(tensor)
            bits, source = next(iter(self.integer[tensor].items()))
            self._insert(_Op.DEQUANTIZE, source, tensor, bits)

    def _insert(self, code: int, source: int, target: int, bits: int = 8) -> None:
        self.done.append(schema.OperatorT(opcodeIndex=self._opcode(code, bits), inputs=np.int32([source]), outputs=np.int32([target])))

    def _opcode(self, code: int, bits: int) -> int:
        """The number of an operator code in its version for activations of so many bits."""
        version = _VERSIONS[bits].get(code, 2 if bits == 8 else 3)
        for index, entry in enumerate(self.model.operatorCodes):
            if (entry.builtinCode, entry.version) == (code, version):
                return index
        self.model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version))
        self.codes.append(code)
        return len(self.codes) - 1

    def _scale(self, tensor: int, bits: int) -> tuple[float, int]:
        """Scale and zero point."""
        low, high = self.shared[tensor]
        if bits == 16:
            # LiteRT's sigmoid of 16 bits gives steps of 2^-15, that of 8 bits such of 2^-8.
            return (1 / 32768, 0) if (low, high) == _SIGMOID else (max(-low, high, 1e-8) / 32767, 0)
        scale = max(high - low, 1e-8) / 255
        return scale, round(-128 - low / scale)

    def _integer_tensor(self, tensor: int, bits: int) -> int:
        scale, zero = self._scale(tensor, bits)
        return self._add(self.graph.tensors[tensor], None, _TYPES[bits], [scale], [zero])

    def _add(
        self, like: schema.TensorT, values: np.ndarray | None, kind: int, scale: Sequence[float], zero: Sequence[int], axis: int = 0
    ) -> int:
        """The number of a new tensor of another's name and shape; without ``values`` something computes it."""
        buffer = 0
        if values is not None:
            self.model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
            buffer = len(self.model.buffers) - 1
        quantization = schema.QuantizationParametersT(scale=np.float32(scale), zeroPoint=np.int64(zero), quantizedDimension=axis)
        self.graph.tensors.append(
            schema.TensorT(shape=like.shape, type=kind, buffer=buffer, name=like.name + b"_int8", quantization=quantization)
        )
        return len(self.graph.tensors) - 1

    def _values(self, tensor: int) -> np.ndarray:
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return np.frombuffer(bytes(data), np.float32).reshape(self.graph.tensors[tensor].shape)

    def _convert(self, operator: schema.OperatorT, bits: int) -> None:
        code = self.code(operator)
        inputs = list(map(int, operator.inputs))
        outputs = []
        for tensor in map(int, operator.outputs):
            outputs.append(self._integer_tensor(tensor, bits))
            self.integer[tensor] = {bits: outputs[-1]}
        if code in _AXIS:
            data, weight, *bias = inputs
            values, scales = quantize_weight(self._values(weight), _AXIS[code])
            kinds = schema.TensorType
            converted = [
                self.integer[data][bits],
                self._add(self.graph.tensors[weight], values, kinds.INT8, scales, np.zeros(len(scales)), _AXIS[code]),
            ]
            for tensor in bias:
                steps = float(self.graph.tensors[self.integer[data][bits]].quantization.scale[0]) * scales.astype(np.float64)
                whole = np.round(self._values(tensor) / steps)
                if bits == 8:
                    whole, kind = whole.clip(-(2**31), 2**31 - 1).astype(np.int32), kinds.INT32
                else:
                    whole, kind = whole.astype(np.int64), kinds.INT64
                converted.append(self._add(self.graph.tensors[tensor], whole, kind, steps, np.zeros(len(steps))))
        else:
            like = outputs[0] if code in _MOVING else None
            converted = [
                self.integer[i][bits] if i in self.integer else self._integer_constant(i, like, bits) if self._is_float(i) else i
                for i in inputs
            ]
        operator.inputs, operator.outputs = np.int32(converted), np.int32(outputs)
        operator.opcodeIndex = self._opcode(code, bits)
        if bits == 16 and code in (_Op.ADD, _Op.SUB):
            operator.builtinOptions.potScaleInt16 = False  # scales are no powers of two

    def _integer_constant(self, tensor: int, like: int | None, bits: int) -> int:
        """A constant operand, with the scale of ``like`` where the operator asks for it."""
        values = self._values(tensor)
        if like is None:
            self.shared[tensor] = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
            scale, zero = self._scale(tensor, bits)
        else:
            given = self.graph.tensors[like].quantization
            scale, zero = float(given.scale[0]), int(given.zeroPoint[0])
        limits = np.iinfo(f"int{bits}")
        whole = (np.round(values / scale) + zero).clip(limits.min, limits.max).astype(limits.dtype)
        return self._add(self.graph.tensors[tensor], whole, _TYPES[bits], [scale], [zero])

    def _store_weight(self, operator: schema.OperatorT) -> None:
        """The weight of an operator of ours, computed in float, as int8 in the file."""
        weights = [i for i in map(int, operator.inputs) if i in self.constants and len(self.graph.tensors[i].shape) == 3]
        for weight in weights:  # (9, C, O)
            values, scales = quantize_weight(self._values(weight), 2)
            stored = self._add(self.graph.tensors[weight], values, schema.TensorType.INT8, scales, np.zeros(len(scales)), 2)
            self.graph.tensors[weight].buffer = 0  # nothing stored: the operator computes it
            self._insert(_Op.DEQUANTIZE, stored, weight)


_SIGMOID = (0.0, 255 / 256)
"""What LiteRT's kernels ask of a sigmoid's output."""


def _shorten_names(model: schema.ModelT) -> None:
    """Numbers for the names of tensors inside: the converter's are a tenth of so small a file."""
    (graph,) = model.subgraphs
    outside = {int(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for index, tensor in enumerate(graph.tensors):
        if index not in outside:
            tensor.name = b"%d" % index


def _constants(model: schema.ModelT) -> set[int]:
    """Tensors with values in the file."""
    (graph,) = model.subgraphs
    stored = [data is not None and len(data) > 0 for data in (buffer.data for buffer in model.buffers)]
    return {index for index, tensor in enumerate(graph.tensors) if stored[tensor.buffer]}


def _name(graph: schema.SubGraphT, operator: schema.OperatorT) -> str:
    return graph.tensors[int(operator.outputs[0])].name.decode()

"""INT8 for Core ML: activations through ``quantize`` and ``dequantize``, weights as ``constexpr_affine_dequantize``, put into the converted
ML Program by coremltools' builder, which knows what types and shapes these operators take.

Its own quantizers stand aside. ``linear_quantize_activations`` asks Core ML itself what the activations are, so it needs a Mac, rounds
ranges to half precision, and knows convolutions, pooling and sums only; ``coremltools.optimize.torch`` finds ranges by observers of its
own, where here they are those of all formats; ``linear_quantize_weights`` divides in half precision, and a channel of zeros by zero.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.coreml_export import MINIMUM_IOS, convert_to_coreml, load_coremltools
from model.artifact import Artifact, RuntimeSpec
from model.checkpoint import Checkpoint
from model.preprocess import InputSpec
from quantize.calibration import Range
from quantize.network import FIRST, WEIGHTS_ONLY
from quantize.weights import quantize_weight
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.mil import Program
from runtime_bench.runtimes.coreml import picture

INTEGER_IOS = "17"
"""First release with operators on int8."""
_MOVING = {
    "cast", "concat", "expand_dims", "pad", "pixel_shuffle", "reduce_max", "reshape", "slice_by_index", "split", "squeeze", "transpose",
    "upsample_nearest_neighbor",
}  # fmt: skip
"""Operators that only choose and move values: one scale for all that goes in and comes out."""
_ACTIVATIONS = ("leaky_relu", "relu")
"""Computed with the convolution in front of them: nothing is rounded in between."""
_SMALLEST_SCALE = {np.float16: np.finfo(np.float16).tiny, np.float32: np.finfo(np.float32).tiny}
"""Processors may take smaller numbers for zero."""


class CoremlInt8:
    """A :class:`quantize.network.Int8Network`; layers have the names of their outputs. What stays in float is in half precision, as in an
    artifact of precision ``fp16``, because integers are for Neural Engines.

    Args:
        checkpoint: with channels equalised.
        dcn: route of its deformable layers, but not ``custom``; ``none`` without.
        size: (height, width) of the input in pixels.
    """

    layout = "NCHW"
    precisions = {"int8": RuntimeSpec("coreml", INTEGER_IOS), WEIGHTS_ONLY: RuntimeSpec("coreml", MINIMUM_IOS)}

    def __init__(self, checkpoint: Checkpoint, dcn: str, size: tuple[int, int]) -> None:
        config = checkpoint.detector.config
        self._input = InputSpec(mean=config.mean, colour_order=config.colour_order)
        # A bounded network is for processors that would rather compute in nothing else.
        self._throughout = dcn == "bounded"
        self._model = convert_to_coreml(checkpoint, dcn, "fp16", size, throughout=self._throughout)
        operations = _operations(_load(self._model, self._model.get_spec().specificationVersion))
        self.layers = tuple(_name(operation) for operation in operations if _is_layer(operation))
        # There are no activations of 16 bits as LiteRT has them for these, but half precision is what Neural Engines are made for.
        self.kept = self.layers[:FIRST] if self._throughout else (*self.layers[:FIRST], *_heads(operations))
        self._watched = _Plan(operations, set(self.layers), self._throughout, alone=False).rounded | set(self.layers)

    def detectors(self, artifact: Artifact) -> list[FaceDetector]:
        return [artifact_detector(artifact, torch.get_num_threads())]

    def activations(self, tensors: Iterable[np.ndarray]) -> Iterator[Iterable[tuple[str, np.ndarray]]]:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "model.mlpackage"
            self._model.save(str(package))
            program = Program(package)
            for tensor in tensors:
                yield ((name, values) for name, values in program.watch(picture(tensor, self._input)) if name in self._watched)

    def write(
        self,
        path: Path,
        ranges: Mapping[str, Range] | None,
        kept: Collection[str] = (),
        only: Collection[str] | None = None,
        precision: str = "int8",
    ) -> None:
        becoming = {name for name in self.layers if name not in kept and (only is None or name in only)}
        quantized(self._model, becoming, ranges, self._throughout, alone=only is not None).save(str(path))


def quantized(model: Any, becoming: Collection[str], ranges: Mapping[str, Range] | None, throughout: bool, alone: bool = False) -> Any:
    """An ML Program with integers.

    Args:
        model: a ``coremltools.models.MLModel``, which stays as it is.
        becoming: names of the layers that become integer.
        ranges: of the activations, by name; ``None`` for weights alone.
        throughout, alone: as for :class:`_Plan`.

    Returns:
        The ``MLModel``, for iOS 17, or 16 with weights alone.
    """
    ct = load_coremltools()
    specification = model.get_spec()
    target = ct.target.iOS16 if ranges is None else ct.target.iOS17
    program = _load(model, target.value)
    operations = _operations(program)
    plan = _Plan(operations, becoming, throughout, alone)
    (function,) = program.functions.values()
    with function:
        _store_weights(plan)
        if ranges is not None:
            _round_activations(operations, plan, ranges)
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        converted = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            skip_model_load=True,
            pass_pipeline=ct.PassPipeline(["common::dead_code_elimination"]),
        )
    changed = converted.get_spec()
    changed.description.CopyFrom(specification.description)  # a program knows no pictures
    _shorten_names(changed.mlProgram)
    return ct.models.MLModel(changed, weights_dir=converted.weights_dir, skip_model_load=True)


def _load(model: Any, version: int) -> Any:
    """A model's program, in the operators of a version of the specification."""
    from coremltools.converters.mil.frontend.milproto.load import load

    return load(model.get_spec(), version, model.weights_dir)


class _Plan:
    """Which operators are integer, and what is rounded for that: what they compute, for all who read it, and what float operators compute,
    for them alone. Between the layers, sums and what only moves values are integer where all that they read is, and a layer reads them:
    attention's products and sigmoids, sampling and its coordinates are not.

    Args:
        operations: of the program, in order.
        becoming: names of the layers that become integer.
        throughout: everything else that has a layer behind it becomes integer as well.
        alone: nothing else does.
    """

    def __init__(self, operations: Sequence[Any], becoming: Collection[str], throughout: bool, alone: bool) -> None:
        def joins(operation: Any) -> bool:
            passes = throughout or operation.op_type in _MOVING or operation.op_type == "add"
            return passes and not alone and not _is_layer(operation)

        needed: set[str] = set()
        """Values that an integer operator reads."""
        for operation in reversed(operations):
            if _name(operation) in becoming or (joins(operation) and needed.intersection(_names(operation.outputs))):
                needed.update(_names(_activations(operation)))
        self.integer: list[Any] = []
        self.behind: list[Any] = []
        """Values that are rounded where they are computed."""
        made: set[str] = set()
        for operation in operations:
            inputs = _names(_activations(operation))
            follows = operation.op_type in _ACTIVATIONS and _is_fused(operation, self.integer)
            joined = joins(operation) and needed.intersection(_names(operation.outputs)) and made.intersection(inputs)
            if not (_name(operation) in becoming or follows or (joined and (throughout or made.issuperset(inputs)))):
                continue
            if follows:
                self.behind.remove(operation.x)
            self.integer.append(operation)
            self.behind += [value for value in operation.outputs if _is_float(value)]
            made.update(_names(operation.outputs))
        self.before = {value.name: value for operation in self.integer for value in _activations(operation) if value.name not in made}
        """Values of float operators that are rounded for integer ones."""
        self.rounded = {*_names(self.behind), *self.before}

    def share(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The range of each value that is rounded: one for all that an operator only moves."""
        groups = {name: {name} for name in self.rounded}
        for operation in self.integer:
            if operation.op_type in _MOVING:
                together = set().union(*(groups[value.name] for value in (*_activations(operation), *operation.outputs)))
                groups.update(dict.fromkeys(together, together))
        return {name: (min(ranges[one][0] for one in group), max(ranges[one][1] for one in group)) for name, group in groups.items()}


def _is_fused(activation: Any, integer: Collection[Any]) -> bool:
    """Whether this is all that becomes of an integer convolution."""
    maker = activation.x.op
    return maker in integer and maker.op_type == "conv" and len(activation.x.child_ops) == 1


def _round_activations(operations: Sequence[Any], plan: _Plan, ranges: Mapping[str, Range]) -> None:
    """``quantize`` and ``dequantize`` behind what integer operators compute, and in front of them."""
    from coremltools.converters.mil import Builder

    @cache
    def constant(value: Any, name: str) -> Any:
        """One for all that need it: each on its own, they are half of so small a file. The builder's own names may be taken."""
        return Builder.const(val=value, name=name, before_op=operations[0])

    shared = plan.share(ranges)
    integer = set(plan.integer)
    readers: dict[str, list[Any]] = {}
    for operation in operations:
        for value in _activations(operation):
            readers.setdefault(value.name, []).append(operation)
    for value in (*plan.behind, *plan.before.values()):
        reading = [one for one in readers.get(value.name, ()) if value.name not in plan.before or one in integer]
        if not reading:
            continue
        kind = np.float16 if value.dtype.__name__ == "fp16" else np.float32
        low, high = shared[value.name]
        step = kind(max((high - low) / 255, _SMALLEST_SCALE[kind]))
        zero = np.int8(np.clip(round(-128 - low / float(step)), -128, 127))
        given = {
            "scale": constant(step, f"{value.name}_scale"),
            "zero_point": constant(zero, f"int8_zero_{zero + np.int16(128)}"),
            "before_op": reading[0],
        }
        whole = Builder.quantize(input=value, output_dtype=constant("int8", "int8_type"), **given)
        rounded = Builder.dequantize(input=whole, **given)
        for operation in reading:
            _replace(operation, value, rounded)


def _store_weights(plan: _Plan) -> None:
    """The weights of integer convolutions as int8; those that share one go on sharing it."""
    from coremltools.converters.mil import Builder

    stored: dict[str, Any] = {}
    for convolution in plan.integer:
        if convolution.op_type != "conv":
            continue
        weight = convolution.weight
        if weight.name not in stored:
            exact = weight.val
            values, scale = quantize_weight(exact.astype(np.float32), 0, _SMALLEST_SCALE[exact.dtype.type])
            stored[weight.name] = Builder.constexpr_affine_dequantize(
                quantized_data=values,
                scale=scale.astype(exact.dtype),
                zero_point=np.zeros(len(scale), np.int8),
                axis=np.int32(0),
                before_op=convolution,
            )
        _replace(convolution, weight, stored[weight.name])


def _shorten_names(program: Any) -> None:
    """Numbers for the names of everything inside: the converter's are long, and a part of so small a file."""
    (function,) = program.functions.values()
    (block,) = function.block_specializations.values()
    short = {name: name for name in (*(given.name for given in function.inputs), *block.outputs)}

    def name(long: str) -> str:
        return short.setdefault(long, f"v{len(short)}")

    for operation in block.operations:
        for given in operation.inputs.values():
            for argument in given.arguments:
                if argument.WhichOneof("binding") == "name":
                    argument.name = name(argument.name)
        for output in operation.outputs:
            output.name = name(output.name)
        operation.attributes["name"].immediateValue.tensor.strings.values[:] = [operation.outputs[0].name]


def _replace(operation: Any, value: Any, other: Any) -> None:
    """Let an operator read another value."""
    changed = {
        name: tuple(other if one is value else one for one in given) if isinstance(given, (tuple, list)) else other
        for name, given in operation.inputs.items()
        if given is value or (isinstance(given, (tuple, list)) and value in given)
    }
    operation.set_inputs(**changed)


def _operations(program: Any) -> list[Any]:
    """What is computed, in order."""
    (function,) = program.functions.values()
    return [operation for operation in function.operations if operation.op_type != "const"]


def _activations(operation: Any) -> list[Any]:
    """Float values that an operator reads and that are no constants."""
    return [value for value in operation.get_flattened_inputs() if _is_float(value) and value.val is None]


def _is_float(value: Any) -> bool:
    return value.dtype.__name__ in ("fp16", "fp32")


def _names(values: Iterable[Any]) -> list[str]:
    return [value.name for value in values]


def _name(operation: Any) -> str:
    return operation.outputs[0].name


def _is_layer(operation: Any) -> bool:
    """Whether this is a convolution of maps with weights that say something: zeros and ones only add up, or move."""
    return operation.op_type == "conv" and operation.weight.rank == 4 and not np.isin(operation.weight.val, (0, 1)).all()


def _heads(operations: Sequence[Any]) -> list[str]:
    """Layers with no other behind them."""
    heads: list[str] = []
    followed: set[str] = set()
    for operation in reversed(operations):
        if followed.intersection(_names(operation.outputs)):
            followed.update(_names(_activations(operation)))
        elif _is_layer(operation):
            heads.append(_name(operation))
            followed.update(_names(_activations(operation)))
    return heads

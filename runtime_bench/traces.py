"""Every value that a network computes on its way: what a file's operators give, one by one, as its runtime executes them.

Values that are stored as integers come as the numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from model.artifact import Artifact
from model.errors import UserError
from model.preprocess import in_layout


class Value(NamedTuple):
    """What one operator gives."""

    name: str
    operator: str
    """As the format calls its kind."""
    sources: tuple[str, ...]
    """Names of what it is computed from, constants too."""


class Trace(NamedTuple):
    """One run."""

    values: dict[str, Value]
    """Those of real numbers, in order of execution."""
    arrays: dict[str, np.ndarray]
    channels: int
    """Axis of the channels, of feature maps."""
    names: Mapping[str, str]
    """What the file calls values, where that is something else."""


def trace(artifact: Artifact, tensor: np.ndarray) -> Trace:
    """Run an artifact on ``(1, 3, H, W)`` float32.

    TFLite files are run by LiteRT's own kernels, since XNNPACK keeps what it computes to itself.

    Raises:
        UserError: it cannot be run here, or its format does not show what it computes.
    """
    runtime = artifact.manifest.runtime.name
    if runtime == "onnxruntime":
        return _trace_onnx(artifact, tensor)
    if runtime == "litert":
        return _trace_tflite(artifact, tensor)
    return _trace_coreml(artifact, tensor)


def _trace_onnx(artifact: Artifact, tensor: np.ndarray) -> Trace:
    import onnx

    from runtime_bench.runtimes.onnxruntime import open_session, session_options

    model = onnx.load(artifact.model_path)
    values = _values((node.op_type, node.input, node.output) for node in model.graph.node)
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in values if name not in given)
    session = open_session(artifact, session_options(threads=1), model.SerializeToString())
    return _trace(values, dict(zip(values, session.run(list(values), {artifact.manifest.input.name: tensor}), strict=True)), channels=1)


def _trace_tflite(artifact: Artifact, tensor: np.ndarray) -> Trace:
    from runtime_bench.runtimes.litert import open_interpreter

    interpreter = open_interpreter(artifact, threads=1, xnnpack=False, keep_all=True)
    (taken,) = interpreter.get_input_details()
    interpreter.set_tensor(taken["index"], np.ascontiguousarray(in_layout(tensor, "NHWC").transpose(0, 2, 3, 1)))
    interpreter.invoke()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    operators = [operator for operator in interpreter._get_ops_details() if operator["op_name"] != "DELEGATE"]  # the only list of them
    names = [[[str(index) for index in operator[side] if index >= 0] for side in ("inputs", "outputs")] for operator in operators]
    values = _values((operator["op_name"], *both) for operator, both in zip(operators, names, strict=True))
    arrays = {name: _restored(interpreter.get_tensor(int(name)), details[int(name)]["quantization_parameters"]) for name in values}
    return _trace(values, arrays, channels=-1, names={name: details[int(name)]["name"] for name in values})


def _restored(stored: np.ndarray, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    if not len(parameters["scales"]) or not np.issubdtype(stored.dtype, np.integer):
        return stored
    return (stored.astype(np.float32) - parameters["zero_points"]) * parameters["scales"]  # activations have one of each


def _trace_coreml(artifact: Artifact, tensor: np.ndarray) -> Trace:
    from runtime_bench.mil import Program
    from runtime_bench.runtimes.coreml import picture

    if artifact.manifest.dcn == "custom":
        raise UserError(f"{artifact.path}: of Core ML files only ML Programs can be looked into; export with --dcn decomposed or bounded")
    program = Program(artifact.model_path)
    return _trace(_values(program.graph), dict(program.watch(picture(tensor, artifact.manifest.input))), channels=1)


_DEQUANTIZERS = {"DequantizeLinear", "DEQUANTIZE", "dequantize"}
_STORAGE = _DEQUANTIZERS | {"QuantizeLinear", "QUANTIZE", "quantize", "Cast", "CAST", "cast"}


def _values(nodes: Iterable[tuple[str, Iterable[str], Iterable[str]]]) -> dict[str, Value]:
    """From operators with what they take and give, in their order. A value that is stored in fewer bits is what comes back from there."""
    nodes = [(kind, tuple(taken), tuple(given)) for kind, taken, given in nodes]
    origins: dict[str, str] = {}
    comes_back: dict[str, str] = {}
    for kind, taken, given in nodes:
        if kind in _STORAGE:
            origins[given[0]] = origins.get(taken[0], taken[0])
            if kind in _DEQUANTIZERS:
                comes_back.setdefault(origins[given[0]], given[0])

    def known(name: str) -> str:
        origin = origins.get(name, name)
        return comes_back.get(origin, origin)

    values = [
        Value(known(name), kind, tuple(map(known, taken))) for kind, taken, given in nodes if kind not in _STORAGE for name in given if name
    ]
    return {value.name: value for value in values}


def _trace(values: Mapping[str, Value], arrays: Mapping[str, np.ndarray], channels: int, names: Mapping[str, str] | None = None) -> Trace:
    """Without values that are no real numbers.

    Args:
        names: to call values by, where they are numbered.
    """
    real = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating) and array.size and name in values}
    return Trace({name: values[name] for name in values if name in real}, real, channels, names or {})

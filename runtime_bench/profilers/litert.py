"""Operator times of LiteRT, from its own profiler.

LiteRT's Python interface has none; the C interface of the library that comes with it has, and reports the operators inside XNNPACK's
parts of the graph too. The binding below is that of LiteRT 2.1: ``litert/c/litert_profiler.h`` and its neighbours.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ctypes import byref, c_bool, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ai_edge_litert
import numpy as np
from packaging.version import Version

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.profilers import WARMUP, OperatorTime
from runtime_bench.runtimes.litert import LiteRtRuntime, open_interpreter, quiet_litert
from runtime_bench.tflite_graph import Node, read_nodes

BINDING = "2.1"
"""Series of LiteRT releases whose C interface is the one below."""
_CPU = 1
_WRITE = 1
_FIRST = c_size_t(0)
_OPERATOR, _XNNPACK_OPERATOR = 2, 8
"""Kinds of events: an operator that LiteRT runs itself, and one inside a delegate's part of the graph."""
_HEAVY = re.compile(r"Convolution|Deconvolution|Fully Connected|Batch Matrix Multiply")
"""XNNPACK's names of what :attr:`runtime_bench.tflite_graph.Node.macs` counts."""
_TENSOR_TYPE_BYTES = 512
"""More than a ``LiteRtRankedTensorType`` needs."""


class _Memory(ctypes.Structure):
    _fields_ = [(name, c_size_t) for name in ("total", "in_use", "private")]


class _Event(ctypes.Structure):
    """``ProfiledEventData``"""

    _fields_ = [
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("us", c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    ]


class _Step(NamedTuple):
    """One operator of a run."""

    tag: str
    kind: int
    index: int
    """Of the file's operators, or within its part of the graph."""


def profile_litert(artifact: Artifact, tensor: np.ndarray, threads: int, runs: int) -> list[OperatorTime]:
    """See :mod:`runtime_bench.profilers`; in order of execution.

    What XNNPACK runs goes by XNNPACK's names. Its convolutions and matrix products are matched with the file's operators by their order.

    Raises:
        UserError: LiteRT refuses the model, is of another series than :data:`BINDING`, or would need a delegate of ours.
    """
    installed = LiteRtRuntime.version
    if Version(installed).release[:2] != Version(BINDING).release:
        raise UserError(
            f"single operators are timed with ai-edge-litert {BINDING}, {installed} is installed; pip install ai-edge-litert~={BINDING}.0"
        )
    if artifact.manifest.runtime.library is not None:
        raise UserError(
            f"{artifact.path}: LiteRT's profiler cannot run our delegate; profile the ONNX file of this route, or --dcn decomposed"
        )
    nodes = read_nodes(open_interpreter(artifact, threads, xnnpack=True))
    with quiet_litert(), ExitStack() as stack:
        run = _compile(artifact, np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)), threads, stack)
        measured = [run() for _ in range(WARMUP + runs)][WARMUP:]
    steps = [step for step, _ in measured[0]]
    medians = np.median([[us for _, us in one] for one in measured], axis=0) / 1e3
    identified = _identify(steps, nodes)
    return [
        OperatorTime(step.tag, name, float(ms), macs, bytes=None) for step, ms, (name, macs) in zip(steps, medians, identified, strict=True)
    ]


def _identify(steps: Sequence[_Step], nodes: Sequence[Node]) -> list[tuple[str, int | None]]:
    """Name and multiply-accumulates of each step."""
    by_index = {node.index: node for node in nodes}
    identified: list[tuple[str, int | None]] = []
    parts: list[list[int]] = []
    for position, step in enumerate(steps):
        if step.kind == _OPERATOR:
            node = by_index[step.index]
            identified.append((node.name, node.macs))
            continue
        if step.index == 0:  # every part of the graph counts from zero
            parts.append([])
        parts[-1].append(position)
        identified.append((f"part {len(parts)}, operator {step.index + 1}", None))
    for number, part in enumerate(parts):
        heavy = [position for position in part if _HEAVY.match(steps[position].tag)]
        known = [node for node in nodes if node.partition == number and node.macs is not None]
        if len(heavy) == len(known):
            for position, node in zip(heavy, known, strict=True):
                identified[position] = (node.name, node.macs)
    return identified


@cache
def _library() -> ctypes.CDLL:
    folder = Path(ai_edge_litert.__file__).parent
    return ctypes.CDLL(str(folder / ("libLiteRt.dylib" if sys.platform == "darwin" else "libLiteRt.so")))


def _call(function: str, *arguments: object) -> None:
    if status := getattr(_library(), f"LiteRt{function}")(*arguments):
        raise UserError(f"LiteRT's {function} failed with status {status}")


def _get(function: str, *arguments: object) -> c_void_p:
    """What a function gives through its last argument."""
    result = c_void_p()
    _call(function, *arguments, byref(result))
    return result


def _compile(artifact: Artifact, pixels: np.ndarray, threads: int, stack: ExitStack) -> Callable[[], list[tuple[_Step, int]]]:
    """Load a model with its input in place; what comes back runs it once and gives the steps with their microseconds."""

    def owned(kind: str, handle: c_void_p) -> c_void_p:
        stack.callback(getattr(_library(), f"LiteRtDestroy{kind}"), handle)
        return handle

    environment = owned("Environment", _get("CreateEnvironment", 0, None))
    model = owned("Model", _get("CreateModelFromFile", str(artifact.model_path).encode()))
    options = owned("Options", _get("CreateOptions"))
    _call("SetOptionsHardwareAccelerators", options, _CPU)
    runtime_options = _get("CreateRuntimeOptions")
    _call("SetRuntimeOptionsEnableProfiling", _get("FindRuntimeOptions", runtime_options), c_bool(True))
    cpu_options = _get("CreateCpuOptions")
    _call("SetCpuOptionsNumThread", _get("FindCpuOptions", cpu_options), threads)
    for more in (runtime_options, cpu_options):
        _call("AddOpaqueOptions", options, more)
    compiled = owned("CompiledModel", _get("CreateCompiledModel", environment, model, options))
    signature = _get("GetModelSignature", model, _FIRST)

    def buffers(side: str) -> ctypes.Array[c_void_p]:
        count = c_size_t()
        _call(f"GetNumSignature{side}s", signature, byref(count))
        made = []
        for index in map(c_size_t, range(count.value)):
            tensor_type = (ctypes.c_byte * _TENSOR_TYPE_BYTES)()
            _call("GetRankedTensorType", _get(f"GetSignature{side}TensorByIndex", signature, index), tensor_type)
            needed = _get(f"GetCompiledModel{side}BufferRequirements", compiled, _FIRST, index)
            made.append(owned("TensorBuffer", _get("CreateManagedTensorBufferFromRequirements", environment, tensor_type, needed)))
        return (c_void_p * len(made))(*made)

    inputs, outputs = buffers("Input"), buffers("Output")
    memory = c_void_p()
    _call("LockTensorBuffer", c_void_p(inputs[0]), byref(memory), _WRITE)
    ctypes.memmove(memory, pixels.ctypes.data, pixels.nbytes)
    _call("UnlockTensorBuffer", c_void_p(inputs[0]))
    profiler = _get("CompiledModelGetProfiler", compiled)

    def run() -> list[tuple[_Step, int]]:
        _call("ResetProfiler", profiler)  # which also stops it
        _call("StartProfiler", profiler)
        _call("RunCompiledModel", compiled, _FIRST, c_size_t(len(inputs)), inputs, c_size_t(len(outputs)), outputs)
        count = c_int()
        _call("GetNumProfilerEvents", profiler, byref(count))
        events = (_Event * count.value)()
        _call("GetProfilerEvents", profiler, count, events)
        timed = (event for event in events if event.kind in (_OPERATOR, _XNNPACK_OPERATOR))
        return [(_Step(event.tag.decode(), event.kind, event.index), event.us) for event in timed]

    return run

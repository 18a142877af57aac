"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate

from model.artifact import MANIFEST, Artifact
from model.errors import UserError
from runtime_bench.runtimes import Outputs, first_of_batch, require_version
from runtime_bench.runtimes.libraries import library_path


@contextmanager
def quiet_litert() -> Iterator[None]:
    """LiteRT tells of its delegates on the process's stderr, below Python, and offers no way to stop it. Errors come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def open_interpreter(artifact: Artifact, threads: int, xnnpack: bool, keep_all: bool = False) -> Interpreter:
    """Load the model of a TFLite artifact and the delegate that runs its operators of ours, and allocate its tensors.

    Args:
        artifact: with ``format`` tflite.
        threads: for the runtime.
        xnnpack: whether XNNPACK runs what it can.
        keep_all: whether every tensor keeps its value, in memory of its own.

    Raises:
        UserError: LiteRT is older than the artifact needs, the delegate is missing, or LiteRT refuses the model.
    """
    require_version(artifact, "ai-edge-litert", LiteRtRuntime.version)
    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    library = artifact.manifest.runtime.library
    try:
        delegates = [] if library is None else [load_delegate(str(library_path(library)))]
        with quiet_litert():
            interpreter = Interpreter(
                str(artifact.model_path),
                num_threads=threads,
                experimental_op_resolver_type=kernels,
                experimental_delegates=delegates,
                experimental_preserve_all_tensors=keep_all,
            )
            interpreter.allocate_tensors()
    except (MemoryError, RuntimeError, ValueError) as error:  # the first where a file asks for more than there is
        raise UserError(f"{artifact.model_path}: LiteRT refuses it: {' '.join(str(error).split())}") from None
    return interpreter


class _End:
    """The input or an output: float32 on our side, on the model's side perhaps int8.

    Args:
        details: what LiteRT says of the tensor.
        dtype: what the manifest says.
        path: of the model, for the error.
    """

    def __init__(self, details: dict[str, Any], dtype: str, path: Path) -> None:
        self.index: int = details["index"]
        self._integer = dtype == "int8"
        self._scale, self._zero = details["quantization"]
        if details["dtype"] != (np.int8 if self._integer else np.float32) or (self._integer and not self._scale > 0):
            raise UserError(f"{path}: {details['name']} is {np.dtype(details['dtype'])}, {MANIFEST} says {dtype}; export it again")

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """As the model takes them."""
        return (np.round(values / self._scale) + self._zero).clip(-128, 127).astype(np.int8) if self._integer else values

    def widened(self, values: np.ndarray) -> np.ndarray:
        """As the model gives them, in float32."""
        return (values.astype(np.float32) - self._zero) * np.float32(self._scale) if self._integer else values


class LiteRtRuntime:
    """Runs a TFLite artifact; raises as :func:`open_interpreter` does.

    Args:
        artifact: with ``format`` tflite.
        threads: for the runtime.
        xnnpack: ``False`` for LiteRT's own kernels: slower, and a second opinion on what a file computes.
    """

    name = "litert"
    version = version("ai-edge-litert")
    simulated = False
    accelerator = "cpu"

    def __init__(self, artifact: Artifact, threads: int, xnnpack: bool = True) -> None:
        self.xnnpack = xnnpack
        self._interpreter = open_interpreter(artifact, threads, xnnpack)
        self._path = artifact.model_path
        inputs = self._interpreter.get_input_details()
        outputs = {tensor["name"]: tensor for tensor in self._interpreter.get_output_details()}
        promised = artifact.manifest.outputs
        if len(inputs) != 1 or {output.name for output in promised} - set(outputs):
            raise UserError(f"{self._path} has not the input and outputs that {MANIFEST} promises; export it again")
        self._input = _End(inputs[0], artifact.manifest.input.dtype, self._path)
        self._outputs = {output.meaning: _End(outputs[output.name], output.dtype, self._path) for output in promised}

    def run(self, tensor: np.ndarray) -> Outputs:
        try:
            # No copy where prepare() laid the tensor out for this artifact.
            self._interpreter.set_tensor(self._input.index, self._input.rounded(np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))))
            self._interpreter.invoke()
            values = {meaning: end.widened(self._interpreter.get_tensor(end.index)) for meaning, end in self._outputs.items()}
        except (MemoryError, RuntimeError, ValueError) as error:
            raise UserError(f"{self._path}: LiteRT cannot run it: {' '.join(str(error).split())}") from None
        return first_of_batch(values, self._path)

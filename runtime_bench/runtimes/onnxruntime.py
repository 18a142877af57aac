"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.runtimes import Outputs, first_of_batch, require_version
from runtime_bench.runtimes.libraries import library_path


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """As every session here has them: ``threads`` work on one operator, operators run one after the other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Patterns keep a second copy of what the first run allocated: for RetinaFace at 640 59 MB instead of 47, and no faster.
    options.enable_mem_pattern = False
    # A buffer that is planned to be used again by a tensor of the same size is kept until then. Networks with maps of many sizes need a
    # third less memory without: the deformable one 54 MB instead of 71, and no slower.
    options.enable_mem_reuse = False
    # Spinning threads of a session that has just run take the processor from the one that runs next, and a phone's battery.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def open_session(artifact: Artifact, options: onnxruntime.SessionOptions, model: bytes | None = None) -> onnxruntime.InferenceSession:
    """Load the model of an ONNX artifact, or ``model`` in its place, and the library with its operators.

    Raises:
        UserError: onnxruntime is older than the artifact needs, its operators are missing, or it refuses the model.
    """
    require_version(artifact, "onnxruntime", onnxruntime.__version__)
    library = artifact.manifest.runtime.library
    if library is not None:
        options.register_custom_ops_library(str(library_path(library)))
    return _load(artifact.model_path, options, model)


def _load(path: Path, options: onnxruntime.SessionOptions, model: bytes | None = None) -> onnxruntime.InferenceSession:
    try:
        # With its fallback it says on stdout that it will try the same again.
        return onnxruntime.InferenceSession(model or path, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its exception classes share no base but this
        raise UserError(f"{path}: onnxruntime refuses it: {' '.join(str(error).split())}") from None


def _run(session: onnxruntime.InferenceSession, names: list[str] | None, feeds: dict[str, np.ndarray], path: Path) -> list[np.ndarray]:
    try:
        return session.run(names, feeds)
    except Exception as error:  # as above
        raise UserError(f"{path}: onnxruntime cannot run it: {' '.join(str(error).split())}") from None


class OnnxRuntime:
    """Runs an ONNX artifact; raises as :func:`open_session` does, and where the model does not take the photograph."""

    name = "onnxruntime"
    version = onnxruntime.__version__
    simulated = False
    accelerator = "cpu"

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._session = open_session(artifact, session_options(threads))
        self._path = artifact.model_path
        self._input = artifact.manifest.input.name
        self._names = {output.meaning: output.name for output in artifact.manifest.outputs}

    def run(self, tensor: np.ndarray) -> Outputs:
        values = _run(self._session, list(self._names.values()), {self._input: tensor}, self._path)
        return first_of_batch(dict(zip(self._names, values, strict=True)), self._path)


class OnnxFile:
    """Runs any ONNX file with one input; a :class:`UserError` where it has another number, or onnxruntime refuses it."""

    name = "onnxruntime"
    version = onnxruntime.__version__
    simulated = False
    accelerator = "cpu"

    def __init__(self, path: Path, threads: int) -> None:
        self._session = _load(path, session_options(threads))
        self._path = path
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise UserError(f"{path} takes {len(inputs)} inputs; a network that takes one photograph is needed")
        self._input = inputs[0].name

    @property
    def outputs(self) -> list[tuple[str, list[int | str]]]:
        """Names and shapes."""
        return [(output.name, output.shape) for output in self._session.get_outputs()]

    def run(self, tensor: np.ndarray) -> list[np.ndarray]:
        return _run(self._session, None, {self._input: tensor}, self._path)

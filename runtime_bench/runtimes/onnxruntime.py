"""ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime
from packaging.version import Version

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.runtimes import Outputs
from runtime_bench.runtimes.libraries import library_path


class OnnxRuntime:
    """Runs an ONNX artifact.

    Args:
        artifact: with ``format`` onnx.
        threads: of one operator; operators run one after the other.

    Raises:
        UserError: onnxruntime is older than the artifact needs, its operators are missing, or it refuses the model.
    """

    name = "onnxruntime"
    version = onnxruntime.__version__

    def __init__(self, artifact: Artifact, threads: int) -> None:
        needed = artifact.manifest.runtime.minimum_version
        if Version(onnxruntime.__version__) < Version(needed):
            raise UserError(
                f"{artifact.path} needs onnxruntime {needed} or newer, {onnxruntime.__version__} is installed; "
                f"pip install 'onnxruntime>={needed}'"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if artifact.manifest.runtime.library is not None:
            options.register_custom_ops_library(str(library_path(artifact.manifest.runtime.library)))
        try:
            self._session = onnxruntime.InferenceSession(artifact.model_path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception classes share no base but this
            raise UserError(f"{artifact.model_path}: onnxruntime refuses it: {' '.join(str(error).split())}") from None
        self._input = artifact.manifest.input.name
        self._names = {output.meaning: output.name for output in artifact.manifest.outputs}

    def run(self, tensor: np.ndarray) -> Outputs:
        values = self._session.run([self._names[meaning] for meaning in Outputs._fields], {self._input: tensor})
        return Outputs(*(value[0] for value in values))

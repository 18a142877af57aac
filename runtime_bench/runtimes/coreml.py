"""Core ML, which is part of macOS and iOS; elsewhere an evaluator of what the file says, by torch."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from model.artifact import Artifact, OutputTensor
from model.errors import UserError
from model.preprocess import InputSpec
from runtime_bench.coreml_layers import Network
from runtime_bench.mil import Program, reading
from runtime_bench.runtimes import Outputs, Runtime, first_of_batch

MACOS_BEHIND = 3
"""Numbers that macOS was behind the iOS of the same year, from iOS 14 to 18."""


def open_coreml(artifact: Artifact) -> Runtime:
    """What runs a Core ML artifact on this machine.

    Raises:
        UserError: macOS is too old, or Core ML or the evaluator refuses the file.
    """
    # Core ML's Python interface has no custom layers.
    return CoreMlRuntime(artifact) if sys.platform == "darwin" and artifact.manifest.dcn != "custom" else EvaluatorRuntime(artifact)


class CoreMlRuntime:
    """Core ML on this Mac, on the processors of its own choice. Threads are its own affair too."""

    name = "coreml"
    version = f"macOS {platform.mac_ver()[0]}"
    simulated = False
    accelerator = ""

    def __init__(self, artifact: Artifact) -> None:
        import coremltools
        from PIL import Image

        needed = int(artifact.manifest.runtime.minimum_version) - MACOS_BEHIND
        if int(platform.mac_ver()[0].partition(".")[0]) < needed:
            raise UserError(f"{artifact.path} needs macOS {needed} or newer, this is {platform.mac_ver()[0]}")
        try:
            self._path = artifact.model_path
            self._model = coremltools.models.MLModel(str(self._path))
        except Exception as error:  # whatever Core ML says, in exceptions of no common base
            raise UserError(f"{artifact.model_path}: Core ML refuses it: {' '.join(str(error).split())}") from None
        self._image = Image.fromarray
        self._manifest = artifact.manifest

    def run(self, tensor: np.ndarray) -> Outputs:
        values = self._model.predict({self._manifest.input.name: self._image(picture(tensor, self._manifest.input))})
        return _by_meaning(values, self._manifest.outputs, self._path)


class EvaluatorRuntime:
    """The evaluator, in its stead: on torch's own number of threads, and with times that say nothing about Core ML."""

    name = "coreml-evaluator"
    version = f"torch {torch.__version__}"
    simulated = True
    accelerator = ""

    def __init__(self, artifact: Artifact) -> None:
        self._path, self._manifest = artifact.model_path, artifact.manifest
        with reading(self._path):
            self._evaluate = (Network if artifact.manifest.dcn == "custom" else Program)(self._path)

    def run(self, tensor: np.ndarray) -> Outputs:
        with reading(self._path):
            return _by_meaning(self._evaluate(picture(tensor, self._manifest.input)), self._manifest.outputs, self._path)


def picture(tensor: np.ndarray, spec: InputSpec) -> np.ndarray:
    """``(1, 3, H, W)`` as :func:`model.preprocess.prepare` makes it back to ``(H, W, 3)`` uint8 RGB, which such a model file takes."""
    pixels = (tensor[0] / spec.scale + np.asarray(spec.mean, np.float32)[:, None, None]).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray((pixels[::-1] if spec.colour_order == "BGR" else pixels).transpose(1, 2, 0))


def _by_meaning(values: Mapping[str, np.ndarray], declared: Iterable[OutputTensor], path: Path) -> Outputs:
    return first_of_batch({output.meaning: values[output.name] for output in declared}, path)

"""Runtimes: one way to run a network, whatever runs it.

A runtime takes the tensor that :func:`model.preprocess.prepare` made and gives the outputs by their meaning. A new one is a module
here and a line in :func:`open_runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from packaging.version import Version

from model.artifact import MANIFEST, Artifact
from model.errors import UserError


class Outputs(NamedTuple):
    """For the ``A`` anchors of one photograph, float32."""

    scores: np.ndarray
    """``(A,)``: face probability."""
    box_deltas: np.ndarray
    """``(A, 4)``"""
    landmark_deltas: np.ndarray
    """``(A, 10)``; ``(A, 0)`` of a network that has no landmarks."""


class Runtime(Protocol):
    name: str
    version: str
    simulated: bool
    """Whether something else computes what the runtime would; then its times mean nothing."""
    accelerator: str
    """What it computes on: ``cpu``; empty where it chooses itself and does not tell."""

    def run(self, tensor: np.ndarray) -> Outputs:
        """Run ``(1, 3, H, W)`` float32, fastest with the memory order that the artifact's ``layout`` names."""
        ...


def require_version(artifact: Artifact, package: str, installed: str) -> None:
    """Raise a :class:`UserError` when a runtime's ``installed`` release is older than what the artifact needs."""
    needed = artifact.manifest.runtime.minimum_version
    if Version(installed) < Version(needed):
        raise UserError(f"{artifact.path} needs {package} {needed} or newer, {installed} is installed; pip install '{package}>={needed}'")


def first_of_batch(values: Mapping[str, np.ndarray], path: Path) -> Outputs:
    """The outputs of one photograph, given by meaning with their batch axis; a :class:`UserError` where they have not got one."""
    if any(
        not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.ndim < 1 or len(value) != 1 for value in values.values()
    ):
        raise UserError(f"{path} gives outputs that are not float32 of one photograph, as {MANIFEST} promises; export it again")
    boxes = values["box_deltas"][0]
    return Outputs(values["scores"][0], boxes, values["landmark_deltas"][0] if "landmark_deltas" in values else boxes[:, :0])


def open_runtime(artifact: Artifact, threads: int) -> Runtime:
    """The runtime that an artifact names, with its model loaded.

    Raises:
        UserError: this version has no such runtime, it is too old, or it refuses the model file.
    """
    name = artifact.manifest.runtime.name
    if name == "onnxruntime":
        from runtime_bench.runtimes.onnxruntime import OnnxRuntime

        return OnnxRuntime(artifact, threads)
    if name == "litert":
        from runtime_bench.runtimes.litert import LiteRtRuntime

        return LiteRtRuntime(artifact, threads)
    if name == "coreml":
        from runtime_bench.runtimes.coreml import open_coreml

        return open_coreml(artifact)
    raise UserError(f"{artifact.path}: no runtime called {name!r} here; update the project")

"""Checkpoint to TFLite artifact, through ONNX."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from export.onnx_export import convert_to_onnx
from export.package import Limits, Progress, Target, converter_failed, package
from export.tflite_model import forbid_reduced_precision, read_model, store_weights_as_float16, write_model
from model.artifact import Artifact, Parity, RuntimeSpec
from model.checkpoint import Checkpoint
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.runtimes.litert import LiteRtRuntime

LIMITS = {"fp32": Limits(scores=1e-4, pixels=1e-2), "fp16": Limits(scores=2e-2, pixels=1.0)}
"""By precision; ``fp16`` is weights stored as float16, arithmetic in float32."""
MINIMUM_LITERT = "2.1"
"""Oldest release that such files were run on."""


def export_tflite(checkpoint: Checkpoint, dcn: str, precision: str, size: tuple[int, int], out: Path, progress: Progress) -> Parity:
    """Write a TFLite artifact: NHWC input, fixed size, outputs and signature in the order of :data:`export.package.OUTPUTS`.

    Args:
        checkpoint: what to export.
        dcn: route of the deformable layers, or ``none`` for a network without.
        precision: a key of :data:`LIMITS`.
        size: (height, width) of the input in pixels.
        out: the artifact's folder; an earlier artifact there is replaced.
        progress: called with the name of each stage as it begins.

    Returns:
        The measured parity, of the worse of two: with XNNPACK, and with LiteRT's own kernels.

    Raises:
        UserError: a converter failed (its log is named), LiteRT refuses the file, or the file differs from torch by more than
            :data:`LIMITS` on real photographs. Then nothing is written.
    """
    target = Target("tflite", precision, dcn, size, "NHWC", RuntimeSpec("litert", MINIMUM_LITERT), LIMITS[precision])

    def make_model(path: Path) -> None:
        progress("converting to ONNX")
        proto = convert_to_onnx(checkpoint.detector, dcn, size)
        progress("converting to TFLite")
        with tempfile.TemporaryDirectory() as folder:
            model = read_model(_convert(proto, Path(folder), checkpoint.detector.config.variant))
        forbid_reduced_precision(model)
        if precision == "fp16":
            store_weights_as_float16(model)
        write_model(model, path)

    return package(checkpoint, target, out, make_model, _both_ways, progress)


def _both_ways(artifact: Artifact) -> Iterator[FaceDetector]:
    threads = torch.get_num_threads()
    detector = artifact_detector(artifact, threads)
    yield detector
    yield replace(detector, runtime=LiteRtRuntime(artifact, threads, xnnpack=False))


def _convert(proto: onnx.ModelProto, folder: Path, name: str) -> Path:
    """Run onnx2tf in a process of its own: it prints without end, and takes settings from the environment."""
    onnx.save(proto, folder / "model.onnx")
    command = [sys.executable, "-m", "onnx2tf", "--input_onnx_file_path", folder / "model.onnx", "--output_folder_path", folder / "tflite"]
    options = ["--tflite_backend", "flatbuffer_direct", "--not_use_onnxsim", "--non_verbose"]
    finished = subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    converted = folder / "tflite" / "model_float32.tflite"
    if finished.returncode or not converted.is_file():
        raise converter_failed(f"onnx2tf cannot convert {name}", finished.stdout)
    return converted

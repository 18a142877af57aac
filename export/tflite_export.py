"""Checkpoint to TFLite artifact, through ONNX."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from ai_edge_litert import schema_py_generated as schema

from export.bounded import require_limit
from export.onnx_export import convert_to_onnx, simplify
from export.package import Limits, Progress, Target, converter_failed, package, require_multiples
from export.rewrites import MOBILE_REWRITES, apply_rewrites
from export.rewrites.heads import DeployModel
from export.tflite_metadata import METADATA, metadata
from export.tflite_model import (
    add_metadata,
    fix_shapes,
    forbid_reduced_precision,
    fuse_relu,
    place_deformable_operators,
    read_model,
    store_weights_as_float16,
    trust_indices,
    write_model,
)
from export.tflite_routes import TFLITE_ROUTES
from model.artifact import REFERENCE, Artifact, Parity, RuntimeSpec, artifact_name
from model.checkpoint import Checkpoint
from model.files import sha256
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.runtimes.litert import LiteRtRuntime

LIMITS = {"fp32": Limits(scores=1e-4, pixels=1e-2), "fp16": Limits(scores=5e-2, pixels=5.0)}
"""For each of :data:`export.tflite_routes.PRECISIONS`."""
MINIMUM_LITERT = "2.1"
"""Oldest release that such files were run on."""
OPSET = 18


def export_tflite(
    checkpoint: Checkpoint,
    dcn: str,
    precision: str,
    size: tuple[int, int],
    out: Path,
    progress: Progress,
    without: Collection[str] = (),
) -> Parity:
    """Write a TFLite artifact: NHWC input, fixed size, outputs and signature in the order of :func:`export.package.outputs_of`.

    Args:
        checkpoint: what to export.
        dcn: one of :data:`export.tflite_routes.TFLITE_ROUTES`, or ``none`` for a network without deformable layers.
        precision: one of :data:`export.tflite_routes.PRECISIONS`.
        size: (height, width) of the input in pixels, multiples of :data:`export.package.STRIDE`.
        out: the artifact's folder; an earlier artifact there is replaced.
        progress: see :data:`export.package.Progress`.
        without: rewrites to leave out, see :data:`export.rewrites.REWRITES`.

    Returns:
        The measured parity, of the worse of two: with XNNPACK, and with LiteRT's own kernels.

    Raises:
        UserError: the size or the route does not go with the format or the checkpoint, a converter failed (its log is named), LiteRT
            refuses the file, or it differs from torch by more than :data:`LIMITS` on real photographs. Then nothing is written.
    """
    require_multiples(size)
    config = checkpoint.detector.config
    if dcn == "bounded":
        require_limit(config)
    model = apply_rewrites(checkpoint.detector, dcn, without, TFLITE_ROUTES, MOBILE_REWRITES)
    library = TFLITE_ROUTES[dcn].needs.library if dcn != "none" else None
    target = Target("tflite", precision, dcn, size, "NHWC", RuntimeSpec("litert", MINIMUM_LITERT, library), LIMITS[precision])

    def make_model(path: Path) -> None:
        converted = convert_to_tflite(model, config.variant, size, progress)
        if precision == "fp16":
            store_weights_as_float16(converted)
        describe(converted, checkpoint, artifact_name(config.variant, dcn, precision, size, "tflite"), path.parent / REFERENCE)
        write_model(converted, path)

    return package(checkpoint, target, out, make_model, both_ways, progress)


def convert_to_tflite(model: DeployModel, name: str, size: tuple[int, int], progress: Progress) -> schema.ModelT:
    """A network as a TFLite model in float32, without metadata.

    Args:
        model: as it is exported.
        name: of the network, for error messages.
        size: (height, width) of the input in pixels.
        progress: see :data:`export.package.Progress`.

    Raises:
        UserError: a converter failed; its log is named.
    """
    progress("converting to ONNX")
    proto = simplify(convert_to_onnx(model, name, OPSET, size))
    progress("converting to TFLite")
    with tempfile.TemporaryDirectory() as folder:
        converted = read_model(_convert(proto, Path(folder), name))
    fix_shapes(converted)
    trust_indices(converted)
    place_deformable_operators(converted)
    fuse_relu(converted)
    forbid_reduced_precision(converted)
    return converted


def describe(model: schema.ModelT, checkpoint: Checkpoint, title: str, reference: Path) -> None:
    """Put TFLite Metadata into a model: what it is called, and where its weights come from."""
    version = f"weights {sha256(reference)[:12]}"
    add_metadata(model, METADATA, metadata(checkpoint.detector.config, title, checkpoint.source, version))


def both_ways(artifact: Artifact) -> Iterator[FaceDetector]:
    """A TFLite artifact with XNNPACK, and with LiteRT's own kernels."""
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

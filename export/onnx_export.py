"""Checkpoint to ONNX artifact: convert, simplify, check, run, compare, and only then write."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
import onnx_ir
import onnx_ir.passes.common as common_passes
import onnxsim
import torch
from onnxscript import optimizer

from export.deform_routes import ONNX_TRANSLATIONS, ROUTES, Requirements
from export.package import Limits, Progress, Target, converter_failed, outputs_of, package
from export.rewrites import apply_rewrites
from export.rewrites.heads import DeployModel
from model.artifact import Artifact, Parity, RuntimeSpec
from model.checkpoint import Checkpoint
from model.errors import UserError
from runtime_bench.detect import FaceDetector, artifact_detector

LIMITS = Limits(scores=1e-4, pixels=1e-3)
NO_ROUTE = Requirements()
"""Of networks without deformable layers."""


def export_onnx(
    checkpoint: Checkpoint,
    dcn: str,
    size: tuple[int, int] | None,
    out: Path,
    progress: Progress,
    without: Collection[str] = (),
) -> Parity:
    """Write an ONNX artifact.

    Args:
        checkpoint: what to export.
        dcn: one of :data:`export.deform_routes.ROUTES`, or ``none`` for a network without deformable layers.
        size: (height, width) of the input in pixels, ``None`` for any size.
        out: the artifact's folder; an earlier artifact there is replaced.
        progress: see :data:`export.package.Progress`.
        without: rewrites to leave out, see :data:`export.rewrites.REWRITES`.

    Returns:
        The measured parity, which ``detector.json`` holds too.

    Raises:
        UserError: the converter failed (its log is named), or the exported model differs from torch by more than :data:`LIMITS` on real
            photographs. Then nothing is written.
    """
    needs = ROUTES[dcn].needs if dcn != "none" else NO_ROUTE
    model = apply_rewrites(checkpoint.detector, dcn, without)
    runtime = RuntimeSpec("onnxruntime", needs.onnxruntime, needs.library)

    def make_model(path: Path) -> None:
        progress("converting")
        proto = convert_to_onnx(model, checkpoint.detector.config.variant, needs.opset, size)
        progress("simplifying and checking")
        onnx.save(simplify(proto), path)

    def detectors(artifact: Artifact) -> list[FaceDetector]:
        return [artifact_detector(artifact, threads=torch.get_num_threads())]

    return package(checkpoint, Target("onnx", "fp32", dcn, size, "NCHW", runtime, LIMITS), out, make_model, detectors, progress)


def convert_to_onnx(model: DeployModel, name: str, opset: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    """Trace a network.

    Args:
        model: as it is exported.
        name: of the network, for error messages.
        opset: ONNX operator set.
        size: (height, width) of the input in pixels, ``None`` for any.

    Raises:
        UserError: torch.onnx failed; its log is named.
    """
    # Any size will do to trace a dynamic model, but height and width must differ, or they are taken for one.
    image = torch.zeros(1, 3, *(size or (256, 320)))
    # Nor does it matter what the smallest is: the file says nothing of it. Maps of one pixel have a memory layout that tracing asks about.
    dynamic = {"image": {2: torch.export.Dim("height", min=33), 3: torch.export.Dim("width", min=33)}}
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings(), _logging_to(log):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (image,),
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=list(outputs_of(model.detector.config)),
                dynamic_shapes=None if size else dynamic,
                custom_translation_table=ONNX_TRANSLATIONS,
                optimize=False,
            )
            _fold(program.model)
        return program.model_proto
    except Exception as error:  # whatever the exporter raises
        raise converter_failed(f"torch.onnx cannot convert {name} ({type(error).__name__})", f"{log.getvalue()}\n{error}\n") from error


def _fold(model: onnx_ir.Model) -> None:
    """What torch.onnx would do to its result, less its search for patterns: minutes for thousands of operators, and onnxsim comes after."""
    optimizer.inline(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common_passes.CommonSubexpressionEliminationPass()(model)


@contextlib.contextmanager
def _logging_to(stream: io.StringIO) -> Iterator[None]:
    """Send what torch's loggers print while converting to ``stream``; they keep their own handle on stderr."""
    handler = logging.StreamHandler(stream)
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    state = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, state, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in fewer nodes, without traces of the exporting process.

    Raises:
        UserError: it is not the same function.
    """
    simplified, same = onnxsim.simplify(proto)
    if not same:
        raise UserError("onnxsim changed what the model computes; nothing was written. Please report the checkpoint and the command")
    for node in simplified.graph.node:
        del node.metadata_props[:]  # stack traces of the exporting process, with its paths
    del simplified.graph.value_info[:]
    # Newer ones shut old runtimes out for nothing.
    simplified.ir_version = onnx.helper.find_min_ir_version_for(simplified.opset_import, ignore_unknown=True)
    onnx.checker.check_model(simplified, full_check=True)
    return simplified

"""Checkpoint to ONNX artifact: convert, simplify, check, run, compare, and only then write."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
import onnx
import onnxsim
import torch
from torch import nn

from export.deform_routes import ONNX_TRANSLATIONS, ROUTES, Requirements
from export.model_card import model_card
from export.parity import measure_parity, require_parity
from export.rewrites import apply_rewrites
from model.anchors import make_anchors
from model.artifact import (
    MODEL_CARD,
    REFERENCE,
    AnchorSpec,
    Artifact,
    InputTensor,
    Manifest,
    OutputTensor,
    Parity,
    RuntimeSpec,
    describe_file,
    write_manifest,
    writing_artifact,
)
from model.checkpoint import Checkpoint, save_checkpoint
from model.config import ModelConfig
from model.errors import UserError
from model.postprocess import Thresholds
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.samples import sample_photographs

SCORE_LIMIT = 1e-4
BOX_LIMIT_PX = 1e-3
NO_ROUTE = Requirements()
"""Of networks without deformable layers."""
OUTPUTS = {"scores": (), "box_deltas": (4,), "landmark_deltas": (10,)}
"""Meaning, and name, of each output in order, with the shape behind batch and anchor."""


def export_onnx(
    checkpoint: Checkpoint,
    dcn: str,
    size: tuple[int, int] | None,
    out: Path,
    progress: Callable[[str], None],
    without: Collection[str] = (),
) -> Parity:
    """Write an ONNX artifact.

    Args:
        checkpoint: what to export.
        dcn: one of :data:`export.deform_routes.ROUTES`, or ``none`` for a network without deformable layers.
        size: (height, width) of the input in pixels, ``None`` for any size.
        out: the artifact's folder; an earlier artifact there is replaced.
        progress: called with the name of each stage as it begins.
        without: rewrites to leave out, see :data:`export.rewrites.REWRITES`.

    Returns:
        The measured parity, which ``detector.json`` holds too.

    Raises:
        UserError: the converter failed (its log is named), or the exported model differs from torch by more than :data:`SCORE_LIMIT` or
            :data:`BOX_LIMIT_PX` on real photographs. Then nothing is written.
    """
    config = checkpoint.detector.config
    needs = ROUTES[dcn].needs if dcn != "none" else NO_ROUTE
    model = apply_rewrites(checkpoint.detector, dcn, without)
    with writing_artifact(out) as folder:
        progress("converting")
        proto = _convert(model, config.variant, needs.opset, size)
        progress("simplifying and checking")
        proto = _simplify(proto)
        onnx.save(proto, folder / "model.onnx")
        save_checkpoint(checkpoint.detector, folder / REFERENCE, checkpoint.source)
        manifest = Manifest(
            variant=config.variant,
            dcn=dcn,
            precision="fp32",
            format="onnx",
            weights=checkpoint.source,
            model=describe_file(folder / "model.onnx"),
            reference=describe_file(folder / REFERENCE),
            input=InputTensor(mean=config.mean, colour_order=config.colour_order, shape=(1, 3, *(size or (None, None)))),
            outputs=tuple(OutputTensor(name, name, (1, _anchor_count(config, size), *rest)) for name, rest in OUTPUTS.items()),
            anchors=AnchorSpec(config.strides, config.min_sizes, config.variances),
            thresholds=Thresholds(),
            runtime=RuntimeSpec("onnxruntime", needs.onnxruntime, needs.library),
            parity=None,
        )
        progress("comparing with torch")
        candidate = artifact_detector(Artifact(folder, manifest), threads=torch.get_num_threads())
        parity = measure_parity(torch_detector(checkpoint, size), candidate, sample_photographs())
        require_parity(parity, SCORE_LIMIT, BOX_LIMIT_PX)
        manifest = msgspec.structs.replace(manifest, parity=parity)
        write_manifest(folder, manifest)
        (folder / MODEL_CARD).write_text(model_card(out.name, manifest), encoding="utf-8")
    return parity


def _convert(model: nn.Module, name: str, opset: int, size: tuple[int, int] | None) -> onnx.ModelProto:
    # Any size will do to trace a dynamic model, but height and width must differ, or they are taken for one.
    image = torch.zeros(1, 3, *(size or (256, 320)))
    dynamic = {"image": {2: torch.export.Dim("height", min=1), 3: torch.export.Dim("width", min=1)}}
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
                output_names=list(OUTPUTS),
                dynamic_shapes=None if size else dynamic,
                custom_translation_table=ONNX_TRANSLATIONS,
            )
        return program.model_proto
    except Exception as error:  # whatever the exporter raises
        with tempfile.NamedTemporaryFile("w", prefix="onnx-export-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(f"{log.getvalue()}\n{error}\n")
        raise UserError(f"torch.onnx cannot convert {name} ({type(error).__name__}); its log is {file.name}") from error


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


_LARGEST_FOLDED = "10KB"


def _simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    # What expands to a large constant stays an operator: runtimes fold it on loading, the file stays small.
    simplified, same = onnxsim.simplify(proto, tensor_size_threshold=_LARGEST_FOLDED)
    if not same:
        raise UserError("onnxsim changed what the model computes; nothing was written. Please report the checkpoint and the command")
    for node in simplified.graph.node:
        del node.metadata_props[:]  # stack traces of the exporting process, with its paths
    del simplified.graph.value_info[:]
    simplified.ir_version = onnx.helper.find_min_ir_version_for(simplified.opset_import)  # newer ones shut old runtimes out for nothing
    onnx.checker.check_model(simplified, full_check=True)
    return simplified


def _anchor_count(config: ModelConfig, size: tuple[int, int] | None) -> int | None:
    return len(make_anchors(*size, config.strides, config.min_sizes)) if size else None

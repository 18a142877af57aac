"""Checkpoint to Core ML artifact: a ``.mlpackage`` that takes a picture, with an ML Program or, for route ``custom``, a neural network."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tomllib
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from export.bounded import require_limit
from export.coreml_custom import register_custom_layer
from export.coreml_routes import COREML_ROUTES
from export.kernel import VERSION
from export.model_card import found
from export.package import (
    INPUT_DESCRIPTION,
    LICENCE,
    OUTPUT_DESCRIPTIONS,
    Limits,
    Progress,
    Target,
    converter_failed,
    outputs_of,
    package,
    require_multiples,
)
from export.rewrites import MOBILE_REWRITES, apply_rewrites
from export.rewrites.heads import DeployModel
from model.artifact import Artifact, Library, Parity, RuntimeSpec
from model.checkpoint import Checkpoint
from model.config import ModelConfig
from model.errors import UserError
from runtime_bench.detect import FaceDetector, artifact_detector

LIMITS = {"fp32": Limits(scores=1e-4, pixels=0.05), "fp16": Limits(scores=5e-2, pixels=10.0)}
"""For each of :data:`export.coreml_routes.PRECISIONS`."""
MINIMUM_IOS = "16"
LAYER = Library("acwface_coreml", VERSION)
"""The class with the kernel in it, :data:`export.coreml_custom.CLASS`, which an app is built with."""
PIXEL_UNIT = 128
"""The network takes pixels over it, and its first weights are so many times larger; a power of two, so nothing is rounded. Those weights
are small, and half precision holds them badly: without it a seventh of them were subnormal, which processors may take for zero."""


def export_coreml(
    checkpoint: Checkpoint,
    dcn: str,
    precision: str,
    size: tuple[int, int],
    out: Path,
    progress: Progress,
    without: Collection[str] = (),
) -> Parity:
    """Write a Core ML artifact: picture in, fixed size, outputs in the order of :func:`export.package.outputs_of`, for iOS 16 and newer.

    Args:
        checkpoint: what to export.
        dcn: one of :data:`export.coreml_routes.COREML_ROUTES`, or ``none`` for a network without deformable layers.
        precision: one of :data:`export.coreml_routes.PRECISIONS`.
        size: (height, width) of the input in pixels, multiples of :data:`export.package.STRIDE`.
        out: the artifact's folder; an earlier artifact there is replaced.
        progress: see :data:`export.package.Progress`.
        without: rewrites to leave out, see :data:`export.rewrites.REWRITES`.

    Returns:
        The measured parity, which ``detector.json`` holds too: by Core ML on macOS, elsewhere by :mod:`runtime_bench.mil`.

    Raises:
        UserError: the size or the route does not go with Core ML or the checkpoint, coremltools cannot be used here or failed (its log is
            named), or the file differs from torch by more than :data:`LIMITS` on real photographs. Then nothing is written.
    """
    config = checkpoint.detector.config
    require_multiples(size)
    if dcn == "bounded":
        require_limit(config)
    target = Target(
        "coreml",
        precision,
        dcn,
        size,
        "NCHW",
        RuntimeSpec("coreml", MINIMUM_IOS, LAYER if dcn == "custom" else None),
        LIMITS[precision],
        suffix="mlpackage",
        dtype="image",
    )

    def make_model(path: Path) -> None:
        progress("converting to Core ML")
        convert_to_coreml(checkpoint, dcn, precision, size, without).save(str(path))

    def detectors(artifact: Artifact) -> list[FaceDetector]:
        return [artifact_detector(artifact, threads=torch.get_num_threads())]

    return package(checkpoint, target, out, make_model, detectors, progress)


def convert_to_coreml(
    checkpoint: Checkpoint, dcn: str, precision: str, size: tuple[int, int], without: Collection[str] = (), throughout: bool = False
) -> Any:
    """Convert, with what the file says of itself; nothing is compared with torch.

    Args:
        checkpoint, dcn, precision, size, without: as for :func:`export_coreml`.
        throughout: in half precision, if that is chosen, the first convolutions as well.

    Returns:
        The ``coremltools.models.MLModel``.

    Raises:
        UserError: coremltools cannot be used here, or failed; then its log is named.
    """
    config = checkpoint.detector.config
    converter = load_coremltools()
    model = apply_rewrites(checkpoint.detector, dcn, without, COREML_ROUTES, MOBILE_REWRITES)
    _enlarge_first_weights(model)
    converted = _convert(converter, model, config, dcn, precision, size, throughout)
    converted.short_description = f"Face detector {config.variant}: {found(config.landmarks)}. Weights: {checkpoint.source}"
    converted.author = "ACWFace toolchain"
    converted.license = LICENCE
    converted.version = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    converted.input_description["image"] = INPUT_DESCRIPTION
    for name in outputs_of(config):
        converted.output_description[name] = OUTPUT_DESCRIPTIONS[name]
    return converted


def load_coremltools() -> ModuleType:
    """coremltools, told to keep quiet of what it lacks here and does not need: Core ML itself.

    Raises:
        UserError: it is not installed, or does not write files on this platform.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    try:
        import coremltools
    except ImportError as error:
        raise UserError(f"coremltools cannot be loaded ({error}); run: make setup") from None
    try:
        import coremltools.libmilstoragepython  # noqa: F401
    except ImportError:
        raise UserError(f"coremltools writes no ML Programs on {sys.platform}; export on Linux or macOS") from None
    return coremltools


@torch.no_grad()
def _enlarge_first_weights(model: DeployModel) -> None:
    next(module for module in model.modules() if isinstance(module, nn.Conv2d)).weight.mul_(PIXEL_UNIT)


def _convert(
    ct: ModuleType, model: DeployModel, config: ModelConfig, dcn: str, precision: str, size: tuple[int, int], throughout: bool
) -> Any:

    def in_half(operation: Any) -> bool:
        """All but the first convolutions, which work at half the size: rounding their weights costs more than all other rounding."""
        return throughout or tuple(operation.outputs[0].shape[2:]) != (size[0] // 2, size[1] // 2)

    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape = (1, 3, *size)
            traced = torch.jit.trace(model, torch.zeros(shape))
            bias = [-mean / PIXEL_UNIT for mean in config.mean]
            picture = ct.ImageType("image", shape, scale=1 / PIXEL_UNIT, bias=bias, color_layout=config.colour_order)
            if dcn == "custom":
                register_custom_layer()
                return _converted_to_layers(ct, traced, picture, outputs_of(config), precision)
            return ct.convert(
                traced,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=ct.transform.FP16ComputePrecision(in_half) if precision == "fp16" else ct.precision.FLOAT32,
                inputs=[picture],
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in outputs_of(config)],
                skip_model_load=True,
            )
    except Exception as error:  # whatever the converter raises
        raise converter_failed(
            f"coremltools cannot convert {config.variant} ({type(error).__name__})", f"{log.getvalue()}\n{error}\n"
        ) from error


def _converted_to_layers(ct: ModuleType, traced: torch.jit.ScriptModule, picture: Any, names: Iterable[str], precision: str) -> Any:
    outputs = [ct.TensorType(name=name) for name in names]
    network = ct.convert(traced, convert_to="neuralnetwork", inputs=[picture], outputs=outputs, skip_model_load=True)
    if precision == "fp32":
        return network
    halved = ct.models.neural_network.quantization_utils.quantize_weights(network, 16)
    return halved if isinstance(halved, ct.models.MLModel) else ct.models.MLModel(halved, skip_model_load=True)

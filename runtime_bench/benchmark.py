"""Everything about one artifact on this machine: what it costs, what it finds, what it lost."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from model.anchors import make_anchors
from model.artifact import MANIFEST, Artifact, Manifest
from model.files import sha256
from model.preprocess import load_image, prepare
from runtime_bench.detect import artifact_detector
from runtime_bench.drift import References, ap_drop, drop_interval, measure_drift
from runtime_bench.evaluate import evaluate, protocol
from runtime_bench.latency import measure_latency
from runtime_bench.record import Result, Roofline
from runtime_bench.roofline import measure_peak, processor
from runtime_bench.samples import PORTRAIT

DYNAMIC_LATENCY_SIZE = (640, 640)
"""Input that latency is measured on where the artifact takes any size."""


def latency_input(manifest: Manifest) -> np.ndarray:
    """``(1, 3, H, W)`` float32: what times are measured on, a portrait at the artifact's own size."""
    return prepare(load_image(PORTRAIT), manifest.input, manifest.input.size or DYNAMIC_LATENCY_SIZE).tensor


_PACKAGES = ("ai-edge-litert", "numpy", "onnxruntime", "pillow", "torch", "torchvision")
"""What figures come from, beside the code of this project."""


def inputs_digest(artifact: Artifact, references: References, threads: int, runs: int) -> str:
    """SHA-256 over everything that a result depends on: the artifact, the photographs, how and by what they are run."""
    code = (file for room in ("model", "runtime_bench") for file in (Path(__file__).resolve().parents[1] / room).rglob("*.py"))
    parts = [
        *(sha256(artifact.path / MANIFEST), references.digest, references.dataset.title, artifact.name),
        *(processor(), str(os.cpu_count()), f"{threads} threads", f"{runs} runs"),
        *(f"{package} {version(package)}" for package in _PACKAGES),
        *(sha256(file) for file in sorted(code)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def benchmark(artifact: Artifact, references: References, threads: int, runs: int, earlier: Result | None = None) -> Iterator[Result]:
    """Measure an artifact; two results, the first without AP, so that an interrupted evaluation costs no measurement.

    Args:
        artifact: what to measure.
        references: the evaluation set, and what FP32 torch finds in it.
        threads: of the latency measurement; the evaluation takes all cores.
        runs: of the latency measurement.
        earlier: a result of the same measurement, interrupted or not: what is in it is not measured again.

    Raises:
        UserError: the artifact cannot be run here, or no image can be read.
    """
    inputs = inputs_digest(artifact, references, threads, runs)
    if earlier is None or earlier.inputs != inputs:
        result = _costs(artifact, references, threads, runs, inputs)
    elif not earlier.images or earlier.failed_images:
        result = earlier
    else:
        yield earlier
        return
    yield result
    print(f"{artifact.name}: AP on {len(references.dataset)} images ...", file=sys.stderr, flush=True)
    evaluation = evaluate(artifact_detector(artifact, threads=os.cpu_count() or 1), references.dataset, artifact.name)
    reference = references.of(artifact)
    yield msgspec.structs.replace(
        result,
        images=len(evaluation.detections),
        failed_images=evaluation.failed,
        image_ms=evaluation.image_ms,
        ap=evaluation.ap,
        ap_reference=reference.ap,
        drop=ap_drop(reference.ap, evaluation.ap),
        drop_interval=drop_interval(references.dataset, reference, evaluation),
        drift=measure_drift(references.dataset, reference, evaluation, artifact.manifest.thresholds.score),
    )


def _costs(artifact: Artifact, references: References, threads: int, runs: int, inputs: str) -> Result:
    """A result without AP."""
    manifest = artifact.manifest
    print(f"{artifact.name}: latency ...", file=sys.stderr, flush=True)
    tensor = latency_input(manifest)
    measured = measure_latency(artifact, tensor, threads, runs)
    return Result(
        artifact=artifact.name,
        variant=manifest.variant,
        dcn=manifest.dcn,
        precision=manifest.precision,
        format=manifest.format,
        weights=manifest.weights,
        checkpoint=manifest.reference.sha256,
        runtime=measured.runtime,
        runtime_version=measured.runtime_version,
        device="local",
        machine=processor(),
        threads=threads,
        size_bytes=manifest.model.size_bytes,
        load_ms=measured.load_ms,
        latency_ms=measured.latency_ms,
        latency_input=tensor.shape[2:],
        peak_memory_bytes=measured.peak_memory_bytes,
        first_run_ms=measured.first_run_ms,
        images_per_s=measured.images_per_s,
        roofline=None if measured.latency_ms is None else _roofline(artifact, references, tensor, threads),
        protocol=protocol(manifest.input.size),
        dataset=references.dataset.title,
        dataset_digest=references.digest,
        inputs=inputs,
    )


_peak = functools.cache(measure_peak)
"""Once a run, for each number of threads."""


def _roofline(artifact: Artifact, references: References, tensor: np.ndarray, threads: int) -> Roofline:
    height, width = tensor.shape[2:]
    anchors = artifact.manifest.anchors
    outputs = 4 * 15 * len(make_anchors(height, width, anchors.strides, anchors.min_sizes))  # score, box and landmarks in single precision
    macs, bytes_ = references.macs(artifact, height, width), artifact.manifest.model.size_bytes + tensor.nbytes + outputs
    peak = _peak(threads)
    return Roofline(peak, macs, bytes_, bound_ms=1e-6 * max(2 * macs / peak.gflops, bytes_ / peak.copy_gbs))

"""Everything about one artifact on this machine: what it costs, what it finds, what it lost."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
import torch

from model.anchors import make_anchors
from model.artifact import MANIFEST, Artifact, Manifest
from model.files import sha256
from model.preprocess import load_image, prepare
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.drift import References, drift_fields
from runtime_bench.evaluate import Evaluation, evaluate, protocol
from runtime_bench.latency import Measurement, Timing, measure_latency
from runtime_bench.peers import Peer, PeerDetector, letterbox
from runtime_bench.record import Curve, EvaluationTimes, Result, Roofline
from runtime_bench.roofline import measure_peak, processor
from runtime_bench.samples import PORTRAIT
from runtime_bench.widerface import WiderFace, precision_recall

DYNAMIC_LATENCY_SIZE = (640, 640)
"""Input that latency is measured on where the artifact takes any size."""


def latency_input(manifest: Manifest) -> np.ndarray:
    """``(1, 3, H, W)`` float32: what times are measured on, a portrait at the artifact's own size."""
    return prepare(load_image(PORTRAIT), manifest.input, manifest.input.size or DYNAMIC_LATENCY_SIZE).tensor


_PACKAGES = ("ai-edge-litert", "numpy", "onnxruntime", "pillow", "torch", "torchvision")
"""What figures come from, beside the code of this project."""


def artifact_inputs(artifact: Artifact, references: References, threads: int, timing: Timing, where: str = "") -> str:
    """:attr:`Result.inputs` of an artifact, on this machine or on the device that ``where`` describes."""
    # The manifest holds the digests of the other files.
    return _inputs(artifact.name, f"{sha256(artifact.path / MANIFEST)} {where}", references, threads, timing)


def peer_inputs(peer: Peer, size: tuple[int, int] | None, references: References, threads: int, timing: Timing) -> str:
    """The same of a peer."""
    return _inputs(peer.title(size), peer.digest, references, threads, timing)


def _inputs(name: str, contents: str, references: References, threads: int, timing: Timing) -> str:
    """SHA-256 over everything that a result depends on: what is run (digest ``contents``), the photographs, how and by what."""
    code = (file for room in ("model", "runtime_bench") for file in (Path(__file__).resolve().parents[1] / room).rglob("*.py"))
    parts = [
        *(name, contents, references.digest, references.dataset.title),
        *(processor(), str(os.cpu_count()), f"{threads} threads", str(timing)),
        *(f"{package} {version(package)}" for package in _PACKAGES),
        *(sha256(file) for file in sorted(code)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def benchmark(artifact: Artifact, references: References, threads: int, timing: Timing, earlier: Result | None = None) -> Iterator[Result]:
    """Measure an artifact; two results, the first without AP, so that an interrupted evaluation costs no measurement.

    Args:
        artifact: what to measure.
        references: the evaluation set, and what FP32 torch finds in it.
        threads: of the latency measurement; the evaluation takes all cores.
        timing: of the latency measurement.
        earlier: a result of the same measurement, interrupted or not: what is in it is not measured again.

    Raises:
        UserError: the artifact cannot be run here, or no image can be read.
    """
    inputs = artifact_inputs(artifact, references, threads, timing)
    result = earlier if earlier and earlier.inputs == inputs else _costs(artifact, references, threads, timing, inputs)
    yield result
    if is_finished(result):
        return
    result, evaluation = _accuracy(result, artifact_detector(artifact, threads=os.cpu_count() or 1), references)
    reference = references.of(artifact)
    start = time.perf_counter()
    drifted = drift_fields(references.dataset, reference, evaluation, artifact.manifest.thresholds.score)
    total = result.evaluation_s.total + time.perf_counter() - start
    yield msgspec.structs.replace(result, **drifted, evaluation_s=msgspec.structs.replace(result.evaluation_s, total=total))


def benchmark_peer(
    peer: Peer, size: tuple[int, int] | None, references: References, threads: int, timing: Timing, earlier: Result | None = None
) -> Iterator[Result]:
    """The same for a peer at an input size of the artifacts; nothing is lost there, so there is no drop."""
    title = peer.title(size)
    inputs = peer_inputs(peer, size, references, threads, timing)
    result = earlier
    if earlier is None or earlier.inputs != inputs:
        print(f"{title}: latency ...", file=sys.stderr, flush=True)
        height, width = size or DYNAMIC_LATENCY_SIZE
        if peer.kind is None:
            measured = Measurement("torch", str(torch.__version__), "cpu")
        else:
            tensor = prepare(letterbox(load_image(PORTRAIT), (height, width))[0], peer.kind.input).tensor
            measured = measure_latency(peer, tensor, threads, timing)
        result = Result(
            artifact=title,
            variant=peer.name,
            dcn="none",
            precision="fp32",
            format=peer.path.suffix[1:],
            weights=f"{peer.path.name}, to compare with",
            checkpoint=peer.digest,
            runtime=measured.runtime,
            runtime_version=measured.runtime_version,
            device="local",
            machine=processor(),
            threads=threads,
            size_bytes=peer.size_bytes,
            latency_input=(height, width),
            **cost_fields(measured),
            accelerator=measured.accelerator,
            protocol=protocol(size),
            dataset=references.dataset.title,
            dataset_digest=references.digest,
            inputs=inputs,
        )
    yield result
    if not is_finished(result):
        yield _accuracy(result, peer.detector(size, threads=os.cpu_count() or 1), references)[0]


def is_finished(result: Result) -> bool:
    return result.images > 0 and not result.failed_images


def _accuracy(result: Result, detector: FaceDetector | PeerDetector, references: References) -> tuple[Result, Evaluation]:
    """A result with AP."""
    print(f"{result.artifact}: AP on {len(references.dataset)} images ...", file=sys.stderr, flush=True)
    start = time.perf_counter()
    found = evaluate(detector, references.dataset, result.artifact)
    scored = {"images": len(found.detections), "failed_images": found.failed, "image_ms": found.image_ms, "ap": found.ap}
    scored["curves"] = curves(found, references.dataset)
    scored["evaluation_s"] = EvaluationTimes(time.perf_counter() - start, found.network_s, found.scoring_s)
    return msgspec.structs.replace(result, **scored), found


def curves(evaluation: Evaluation, dataset: WiderFace) -> tuple[Curve, ...]:
    """Of the photographs that were evaluated."""
    found = evaluation.detections
    measured = precision_recall([dataset.faces[name] for name in found], list(found.values()), evaluation.counts)
    return tuple(Curve(subset, *(tuple(np.round(values, 4).tolist()) for values in of_subset)) for subset, of_subset in measured.items())


def _costs(artifact: Artifact, references: References, threads: int, timing: Timing, inputs: str) -> Result:
    """A result without AP."""
    print(f"{artifact.name}: latency ...", file=sys.stderr, flush=True)
    tensor = latency_input(artifact.manifest)
    measured = measure_latency(artifact, tensor, threads, timing)
    return Result(
        **artifact_fields(artifact, references),
        runtime=measured.runtime,
        runtime_version=measured.runtime_version,
        device="local",
        machine=processor(),
        threads=threads,
        latency_input=tensor.shape[2:],
        **cost_fields(measured),
        accelerator=measured.accelerator,
        roofline=None if measured.latency_ms is None else _roofline(artifact, references, tensor, threads),
        inputs=inputs,
    )


def artifact_fields(artifact: Artifact, references: References) -> dict[str, object]:
    """What a :class:`Result` says of an artifact and of the photographs, whatever device it is measured on."""
    manifest = artifact.manifest
    return {
        "artifact": artifact.name,
        "variant": manifest.variant,
        "dcn": manifest.dcn,
        "precision": manifest.precision,
        "format": manifest.format,
        "weights": manifest.weights,
        "checkpoint": manifest.reference.sha256,
        "size_bytes": manifest.model.size_bytes,
        "protocol": protocol(manifest.input.size),
        "dataset": references.dataset.title,
        "dataset_digest": references.digest,
    }


def cost_fields(measured: Measurement) -> dict[str, object]:
    """The figures of a measurement."""
    names = ("load_ms", "latency_ms", "peak_memory_bytes", "first_run_ms", "images_per_s")
    return {name: getattr(measured, name) for name in names}


_peak = functools.cache(measure_peak)
"""Once a run, for each number of threads."""


def _roofline(artifact: Artifact, references: References, tensor: np.ndarray, threads: int) -> Roofline:
    height, width = tensor.shape[2:]
    anchors = artifact.manifest.anchors
    values = sum(math.prod(output.shape[2:]) for output in artifact.manifest.outputs)  # of an anchor, in single precision
    outputs = 4 * values * len(make_anchors(height, width, anchors.strides, anchors.min_sizes))
    macs, bytes_ = references.macs(artifact, height, width), artifact.manifest.model.size_bytes + tensor.nbytes + outputs
    peak = _peak(threads)
    return Roofline(peak, macs, bytes_, bound_ms=1e-6 * max(2 * macs / peak.gflops, bytes_ / peak.copy_gbs))

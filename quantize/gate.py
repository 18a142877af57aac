"""What INT8 cost, and whether it may ship."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from PIL import Image
from tabulate import tabulate

from model.artifact import Artifact
from model.errors import UserError
from model.files import atomic_file
from model.postprocess import Detections, Thresholds
from model.preprocess import load_image
from quantize.calibration import Histogram
from quantize.make import Calibrated
from quantize.sensitivity import Sensitivity
from runtime_bench.benchmark import latency_input
from runtime_bench.compare import compare
from runtime_bench.detect import artifact_detector
from runtime_bench.draw import draw_detections
from runtime_bench.drift import References, ap_drop, drop_interval, measure_drift
from runtime_bench.evaluate import Evaluation, evaluate, protocol
from runtime_bench.record import SubsetAP, SubsetInterval
from runtime_bench.roofline import processor
from runtime_bench.widerface import SUBSETS

SHOWN = 4
"""Photographs that changed most, drawn side by side."""


class Judgement(Struct, frozen=True):
    """One INT8 artifact against FP32; a record of ``int8.json``."""

    artifact: str
    format: str
    route: str
    precision: str
    """``int8``, or ``w8``: weights alone."""
    protocol: str
    dataset: str
    images: int
    method: str
    kept: tuple[str, ...]
    """Layers in float."""
    ap_fp32: SubsetAP
    """Of the FP32 torch model."""
    ap_int8: SubsetAP
    drop: SubsetAP
    drop_interval: SubsetInterval
    max_drop: float
    passed: bool
    fp32_ms: float | None
    """Median of one image, in one run with INT8; ``None`` where the runtime is not here."""
    int8_ms: float | None
    speedup: float | None
    size_ratio: float
    """INT8 file over FP32 file."""
    machine: str | None = None
    """Where the times were taken."""


def judge(
    fp32: Artifact, int8: Artifact, method: str, kept: Sequence[str], references: References, max_drop: float, threads: int, pictures: Path
) -> Judgement:
    """Measure accuracy and speed, and draw the photographs on which the two differ most, FP32 on the left.

    Raises:
        UserError: one of them cannot be run here, or no image can be read.
    """
    size = int8.manifest.input.size
    before = references.of(int8)
    found = evaluate(artifact_detector(int8, threads=os.cpu_count() or 1), references.dataset, int8.name)
    drop = ap_drop(before.ap, found.ap)
    try:
        speeds = compare([fp32, int8], [], latency_input(fp32.manifest), threads, processor())
        times = [speed.median_ms for speed in speeds]
    except UserError:
        times = None
    _draw(references, before, found, pictures)
    return Judgement(
        artifact=int8.name,
        format=int8.manifest.format,
        route=int8.manifest.dcn,
        precision=int8.manifest.precision,
        protocol=protocol(size),
        dataset=references.dataset.title,
        images=len(found.detections),
        method=method,
        kept=tuple(kept),
        ap_fp32=before.ap,
        ap_int8=found.ap,
        drop=drop,
        drop_interval=drop_interval(references.dataset, before, found),
        max_drop=max_drop,
        passed=all(value is None or value <= max_drop for value in (getattr(drop, subset) for subset in SUBSETS)),
        fp32_ms=times[0] if times else None,
        int8_ms=times[1] if times else None,
        speedup=times[0] / times[1] if times else None,
        size_ratio=int8.manifest.model.size_bytes / fp32.manifest.model.size_bytes,
        machine=processor() if times else None,
    )


def _draw(references: References, before: Evaluation, found: Evaluation, folder: Path) -> None:
    threshold = Thresholds().score
    drift = measure_drift(references.dataset, before, found, threshold)
    for image in drift.changed[:SHOWN]:
        photograph = load_image(references.dataset.images / image.name)
        sides = [draw_detections(photograph, _shown(side.detections[image.name], threshold)) for side in (before, found)]
        both = Image.new("RGB", (2 * sides[0].width, sides[0].height))
        for index, side in enumerate(sides):
            both.paste(side, (index * side.width, 0))
        with atomic_file(folder / f"{Path(image.name).stem}.jpg") as temporary:
            both.save(temporary, quality=90)


def _shown(detections: Detections, threshold: float) -> Detections:
    kept = detections.scores > threshold
    return Detections(detections.boxes[kept], detections.scores[kept], detections.landmarks[kept])


def explain(calibrated: Calibrated, ranking: Sequence[Sensitivity], kept: Collection[str]) -> str:
    """The three worst layers of those that are integer, and what is likely to be the matter with each."""
    lines = ["the worst layers when each alone is INT8:"]
    for entry in [entry for entry in ranking if entry.layer not in kept][:3]:
        lines.append(f"  {entry.layer}: {entry.sqnr_db:.1f} dB; {_cause(calibrated.histograms.get(entry.layer))}")
    return "\n".join(lines)


def _cause(histogram: Histogram | None) -> str:
    if histogram is None or not histogram.reached:
        return "its activation was not seen, or was always zero"
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    low, high = (histogram.centres()[min(np.searchsorted(share, place), len(share) - 1)] for place in (0.01, 0.99))
    wide = (histogram.high - histogram.low) / max(high - low, 1e-9)
    said = f"its output reaches from {histogram.low:.3g} to {histogram.high:.3g}, 98 % of it lies between {low:.3g} and {high:.3g}"
    return (
        f"{said}: one scale is too coarse for that" if wide > 4 else f"{said}: 8 bits for it, or for its weights, are few; keep it in float"
    )


def judgements_table(judgements: Sequence[Judgement]) -> str:
    headers = ["artifact", *SUBSETS, "drop e / m / h", "may drop", "file", "FP32 ms", "INT8 ms", "faster", ""]
    rows = []
    for one in judgements:
        times = ["-"] * 3 if one.speedup is None else [f"{one.fp32_ms:.1f}", f"{one.int8_ms:.1f}", f"{one.speedup:.2f}x"]
        aps, drops = ([getattr(side, subset) for subset in SUBSETS] for side in (one.ap_int8, one.drop))
        rows.append(
            [
                one.artifact,
                *("-" if value is None else f"{value:.2f}" for value in aps),
                " / ".join("-" if value is None else f"{value:+.2f}" for value in drops),
                f"{one.max_drop:g}",
                f"{one.size_ratio:.2f}",
                *times,
                "passed" if one.passed else "FAILED",
            ]
        )
    lines = [tabulate(rows, headers, colalign=("left", *["right"] * 8, "left"), disable_numparse=True)]
    lines += dict.fromkeys(f"times: one image, {one.machine}" for one in judgements if one.machine)
    lines += dict.fromkeys(f"AP on {one.images} images of {one.dataset}, scaling {one.protocol}" for one in judgements)
    return "\n".join(lines)

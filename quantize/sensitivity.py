"""Which layers suffer from being integer."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from model.artifact import Artifact, describe_file
from model.files import write_json
from model.postprocess import Thresholds
from model.preprocess import in_layout, load_image
from quantize.calibration import Range
from quantize.network import Int8Network
from runtime_bench.detect import FaceDetector, artifact_detector
from runtime_bench.runtimes import Outputs, open_runtime
from runtime_bench.widerface import EVALUATION, SUBSETS, GroundTruth, average_precision

_FACE = Thresholds(score=0.3)
"""What FP32 finds so is taken for a face."""


class Sensitivity(NamedTuple):
    """One layer."""

    layer: str
    sqnr_db: float
    """Signal to quantization noise of the worst of the three outputs, where there are faces, when this layer alone is integer."""


def candidate(
    artifact: Artifact, network: Int8Network, ranges: Mapping[str, Range] | None, folder: Path, **choice: Collection[str]
) -> Artifact:
    """A quantized model in ``folder`` that can be run as the FP32 artifact can, but is no artifact of its own."""
    path = folder / artifact.manifest.model.name
    network.write(path, ranges, **choice)
    return Artifact(folder, msgspec.structs.replace(artifact.manifest, model=describe_file(path), runtime=network.precisions["int8"]))


def measure_sensitivity(
    artifact: Artifact, network: Int8Network, ranges: Mapping[str, Range] | None, tensors: Sequence[np.ndarray]
) -> list[Sensitivity]:
    """Quantize each layer alone, the most sensitive first.

    Args:
        artifact: FP32, the judge.
        network: the same one, to be quantized.
        ranges: of its activations.
        tensors: ``(1, 3, H, W)`` float32 inputs.
    """
    threads = torch.get_num_threads()
    exact = open_runtime(artifact, threads)
    before = [exact.run(in_layout(tensor, network.layout)) for tensor in tensors]
    found = []
    for layer in tqdm(network.layers, desc="sensitivity", unit="layer", disable=None, leave=False):
        with tempfile.TemporaryDirectory() as folder:
            runtime = open_runtime(candidate(artifact, network, ranges, Path(folder), only=(layer,)), threads)
            after = [runtime.run(in_layout(tensor, network.layout)) for tensor in tensors]
        found.append(Sensitivity(layer, _sqnr(before, after)))
    return sorted(found, key=lambda entry: entry.sqnr_db)


def _sqnr(before: Sequence[Outputs], after: Sequence[Outputs]) -> float:
    kept = [outputs.scores > EVALUATION.score for outputs in before]
    worst = np.inf
    for field in Outputs._fields:
        exact, rounded = (
            np.concatenate([getattr(outputs, field)[mask].ravel() for outputs, mask in zip(side, kept, strict=True)])
            for side in (before, after)
        )
        noise = float(np.square(rounded - exact, dtype=np.float64).sum())
        worst = min(worst, 10 * np.log10(float(np.square(exact, dtype=np.float64).sum()) / max(noise, 1e-12)))
    return float(worst)


def agreement(exact: FaceDetector, quantized: FaceDetector, photographs: Sequence[Path]) -> float:
    """Average precision, in percent, with what FP32 finds taken for the truth: no labels are needed, and 100 is no change at all."""
    truth, found = [], []
    for path in photographs:
        image = load_image(path)
        faces = exact.detect(image, _FACE)[0].boxes
        truth.append(GroundTruth(faces, dict.fromkeys(SUBSETS, np.ones(len(faces), bool))))
        found.append(quantized.detect(image, EVALUATION)[0])
    return float(average_precision(truth, found)[SUBSETS[0]])


class Step(NamedTuple):
    """One attempt of the search."""

    kept: tuple[str, ...]
    agreement: float


def search(
    artifact: Artifact,
    network: Int8Network,
    ranges: Mapping[str, Range] | None,
    ranking: Sequence[Sensitivity],
    photographs: Sequence[Path],
    target: float,
) -> list[Step]:
    """Keep more and more of the most sensitive layers in float until the target is met; the last step is the result.

    Args:
        artifact: FP32.
        network, ranges: what is quantized.
        ranking: from :func:`measure_sensitivity`.
        photographs: to judge by; not those of the calibration.
        target: see :func:`agreement`.
    """
    threads = torch.get_num_threads()
    exact = artifact_detector(artifact, threads)
    steps: list[Step] = []
    for count in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24):
        kept = tuple(entry.layer for entry in ranking[:count])
        with tempfile.TemporaryDirectory() as folder:
            detector = artifact_detector(candidate(artifact, network, ranges, Path(folder), kept=kept), threads)
            steps.append(Step(kept, agreement(exact, detector, photographs)))
        if steps[-1].agreement >= target or count >= len(ranking):
            break
    return steps


def write_sensitivity(path: Path, ranking: Sequence[Sensitivity], steps: Sequence[Step]) -> None:
    """Write JSON, atomically."""
    said = {"layers": [entry._asdict() for entry in ranking], "steps": [step._asdict() for step in steps]}
    write_json(path, said)

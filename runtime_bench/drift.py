"""What an artifact lost against the FP32 torch model that it was made from."""

from __future__ import annotations

from model.artifact import Artifact
from model.checkpoint import load_checkpoint
from runtime_bench.detect import torch_detector
from runtime_bench.evaluate import Evaluation, evaluate
from runtime_bench.record import SubsetAP
from runtime_bench.widerface import SUBSETS, WiderFace


class References:
    """Evaluations of FP32 torch models on one dataset, each made once: artifacts of one checkpoint and one input size share it."""

    def __init__(self, dataset: WiderFace) -> None:
        self.dataset = dataset
        self._evaluations: dict[tuple[str, tuple[int, int] | None], Evaluation] = {}

    def of(self, artifact: Artifact) -> Evaluation:
        key = (artifact.manifest.reference.sha256, artifact.manifest.input.size)
        if key not in self._evaluations:
            detector = torch_detector(load_checkpoint(artifact.reference_path), artifact.manifest.input.size)
            self._evaluations[key] = evaluate(detector, self.dataset, "FP32 torch")
        return self._evaluations[key]


def ap_drop(reference: SubsetAP, ap: SubsetAP) -> SubsetAP:
    """Percentage points lost on each subset, ``None`` where there is nothing to compare."""
    pairs = {subset: (getattr(reference, subset), getattr(ap, subset)) for subset in SUBSETS}
    return SubsetAP(**{subset: None if None in pair else pair[0] - pair[1] for subset, pair in pairs.items()})

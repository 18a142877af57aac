"""WIDER FACE accuracy of the public RetinaFace weights, through torch and through the exported model. Minutes: ``make test-accuracy``."""

import pytest

from export.onnx_export import export_onnx
from model.artifact import open_artifact
from runtime_bench.detect import artifact_detector, torch_detector
from runtime_bench.evaluate import evaluate
from runtime_bench.widerface import SUBSETS, load_validation

pytestmark = pytest.mark.accuracy

DEV = {"easy": 89.308, "medium": 85.780, "hard": 75.259}
"""On the 358 images of dev_list.txt at original scale; two evaluators written independently agree on these to 0.01."""


def test_public_retinaface_at_original_scale(public_retinaface, wider_root, tmp_path):
    dataset = load_validation(wider_root, wider_root / "val" / "dev_list.txt")
    export_onnx(public_retinaface, "none", None, tmp_path / "a", lambda stage: None)
    in_torch = evaluate(torch_detector(public_retinaface, None), dataset, "torch").ap
    in_onnx = evaluate(artifact_detector(open_artifact(tmp_path / "a"), 2), dataset, "ONNX").ap
    for subset in SUBSETS:
        assert getattr(in_torch, subset) == pytest.approx(DEV[subset], abs=0.02)
        assert getattr(in_onnx, subset) == pytest.approx(getattr(in_torch, subset), abs=0.02)

"""The deformable network on operators of the project's own, run by ONNX Runtime."""

import onnx
import pytest

from export.kernel import LIBRARIES
from export.onnx_export import LIMITS, export_onnx
from model.artifact import open_artifact
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from runtime_bench.runtimes.libraries import library_path


@pytest.fixture(autouse=True)
def _library():
    try:
        library_path(LIBRARIES["ort"])
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("size", "without"), [(None, ()), ((96, 128), ("merge-predictions", "fold-norm", "mix-then-sample"))])
def test_custom_route(size, without, tmp_path):
    checkpoint = Checkpoint(build_detector(VARIANTS["acwface_dcn"], seed=0), "untrained")
    parity = export_onnx(checkpoint, "custom", size, tmp_path / "a", lambda stage: None, without)
    assert parity.scores < LIMITS.scores
    assert parity.anchors > 1000
    artifact = open_artifact(tmp_path / "a")
    assert artifact.manifest.runtime.library == LIBRARIES["ort"]
    operators = [node.op_type for node in onnx.load(artifact.model_path).graph.node if node.domain == "acwface"]
    assert len([name for name in operators if name.startswith("Deform")]) == 23
    assert operators.count("Conv3x3") == (23 if not without else 46)

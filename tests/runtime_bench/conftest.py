"""An artifact to measure."""

import pytest

from export.onnx_export import export_onnx
from model.checkpoint import default_checkpoint, load_checkpoint
from tests.conftest import DATA


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """The public RetinaFace where it is at hand, else untrained weights; 320x320."""
    path = tmp_path_factory.mktemp("bench") / "small"
    public = DATA / "weights" / "retinaface_mobilenet025_final.pth"
    checkpoint = load_checkpoint(public) if public.is_file() else default_checkpoint("retinaface")
    export_onnx(checkpoint, "none", (320, 320), path, lambda stage: None)
    return path

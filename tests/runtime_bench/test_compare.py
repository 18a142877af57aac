"""Side by side: interleaved times and their ratios, and libraries that are not there."""

import msgspec
import numpy as np
import pytest

from export.kernel import LIBRARIES, VERSION
from export.onnx_export import export_onnx
from model.artifact import Library, open_artifact
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from runtime_bench.compare import ROUNDS, RUNS, Speed, compare
from runtime_bench.runtimes import libraries, open_runtime
from tests.conftest import error_line


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """RetinaFace, and the deformable network as it comes and rewritten; 64x64."""
    folder = tmp_path_factory.mktemp("compare")
    for name, variant, route, without in (
        ("retinaface", "retinaface", "none", ()),
        ("naive", "acwface_dcn", "native", ("split-attention", "mix-then-sample", "merge-heads")),
        ("rewritten", "acwface_dcn", "native", ()),
    ):
        checkpoint = Checkpoint(build_detector(VARIANTS[variant], seed=0), "untrained")
        export_onnx(checkpoint, route, (64, 64), folder / name, lambda stage: None, without)
    return folder


def test_ratios_are_those_of_the_medians(cli, folders, tmp_path):
    code, said, _ = cli(
        *("runtime_bench", "compare", folders / "retinaface", folders / "rewritten", "--naive", folders / "naive"),
        *("--threads", 1, "--json", tmp_path / "speed.json"),
    )
    assert code == 0
    retinaface, rewritten, naive = msgspec.json.decode((tmp_path / "speed.json").read_bytes(), type=list[Speed])
    assert (retinaface.route, rewritten.route, naive.route) == ("none", "native", "naive-native")
    assert retinaface.vs_naive is None
    assert retinaface.vs_retinaface == naive.vs_naive == 1
    assert rewritten.vs_naive == pytest.approx(naive.median_ms / rewritten.median_ms)
    assert rewritten.vs_retinaface == pytest.approx(rewritten.median_ms / retinaface.median_ms)
    for speed in (retinaface, rewritten, naive):
        assert speed.p10_ms <= speed.median_ms <= speed.p90_ms
        assert (speed.size, speed.threads, speed.rounds, speed.runs) == ((64, 64), 1, ROUNDS, RUNS)
        assert speed.parity.anchors > 0
    assert f"{rewritten.vs_naive:.2f}x faster" in said


def test_artifacts_of_any_size_are_refused(cli, tmp_path):
    export_onnx(Checkpoint(build_detector(VARIANTS["retinaface"], seed=0), "untrained"), "none", None, tmp_path / "any", lambda stage: None)
    code, _, error = cli("runtime_bench", "compare", tmp_path / "any", "--json", tmp_path / "speed.json")
    assert code == 2
    assert "takes any size" in error_line(error)
    assert not (tmp_path / "speed.json").exists()


def test_a_naive_export_of_another_checkpoint_is_refused(folders):
    artifact, other = (open_artifact(folders / name) for name in ("rewritten", "naive"))
    reference = msgspec.structs.replace(other.manifest.reference, sha256="0" * 64)
    other = msgspec.structs.replace(other, manifest=msgspec.structs.replace(other.manifest, reference=reference))
    with pytest.raises(UserError, match="naive and .*rewritten were made from different checkpoints; compare files of one"):
        compare([artifact], [other], np.zeros((1, 3, 64, 64), np.float32), 1, "m")


def with_library(folder, library):
    artifact = open_artifact(folder)
    runtime = msgspec.structs.replace(artifact.manifest.runtime, library=library)
    return msgspec.structs.replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, runtime=runtime))


def test_a_library_that_was_not_built_is_named_with_the_command_that_builds_it(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "NATIVE", tmp_path)
    with pytest.raises(UserError, match=r"acwface_ort .* has not been built; run: make native"):
        open_runtime(with_library(folders / "retinaface", LIBRARIES["ort"]), 1)


@pytest.mark.parametrize("version", ["0.9.0", "2.0.0", f"{VERSION}.1", "1.999.0"])
def test_a_library_that_does_not_serve_is_refused(folders, version):
    if not (libraries.NATIVE / libraries.host()).is_dir():
        pytest.skip("the library has not been built: make native")
    with pytest.raises(UserError, match=rf"acwface_ort {version} are needed, .* run: make native"):
        open_runtime(with_library(folders / "retinaface", Library("acwface_ort", version)), 1)


def test_a_newer_library_serves_older_artifacts(folders):
    if not (libraries.NATIVE / libraries.host()).is_dir():
        pytest.skip("the library has not been built: make native")
    open_runtime(with_library(folders / "retinaface", Library("acwface_ort", "1.1.1")), 1)

"""Operator times: every operator is there, its work is counted, its rate follows."""

import time

import msgspec
import numpy as np
import pytest

from export.onnx_export import export_onnx
from export.rewrites import REWRITES
from export.tflite_export import export_tflite
from model.artifact import open_artifact
from model.checkpoint import Checkpoint, load_checkpoint
from model.config import VARIANTS
from model.cost import measure_cost
from model.detector import build_detector
from runtime_bench.profile import Profile, profile_artifact
from runtime_bench.profilers.onnxruntime import count_macs
from runtime_bench.roofline import measure_peak
from tests.conftest import error_line

SAVED_BY_MERGED_HEADS = 64 * 2 * (40**2 + 20**2 + 10**2)
"""At 320x320: exported heads have one class output for each anchor, where the network has two."""


def assert_consistent(profile: Profile):
    for operators in (profile.operators, profile.kinds):
        assert sum(operator.ms for operator in operators) == pytest.approx(profile.operators_ms)
        assert sum(operator.share for operator in operators) == pytest.approx(1)
        assert [operator.ms for operator in operators] == sorted((operator.ms for operator in operators), reverse=True)
    for operator in profile.operators:
        if operator.macs and operator.ms > 0:
            assert operator.gflops == pytest.approx(2 * operator.macs / operator.ms / 1e6)
            assert operator.of_peak == pytest.approx(operator.gflops / profile.peak.gflops)
    # All of the network is in the list, and nothing else. Wide limits: other work may run beside the tests.
    assert 0.1 < profile.operators_ms / profile.network_ms < 10


def test_work_of_a_real_model_is_what_torch_counts(cli, artifact, tmp_path):
    code, tables, _ = cli("runtime_bench", "profile", artifact, "--runs", 3, "--json", tmp_path / "p.json")
    assert code == 0
    profile = msgspec.json.decode((tmp_path / "p.json").read_bytes(), type=Profile)
    assert_consistent(profile)
    detector = load_checkpoint(open_artifact(artifact).reference_path).detector
    assert sum(operator.macs or 0 for operator in profile.operators) == measure_cost(detector, 320, 320).macs - SAVED_BY_MERGED_HEADS
    assert {"Conv 3x3", "Conv 1x1", "Conv 3x3 depthwise"} <= {kind.op for kind in profile.kinds}
    assert (profile.runtime, profile.threads, profile.input, profile.runs) == ("onnxruntime", 1, (320, 320), 3)
    assert f"{profile.peak.gflops:.1f} GFLOP/s" in tables
    assert profile.operators[0].name in tables


def test_work_of_a_tflite_file_is_what_torch_counts(public_retinaface, tmp_path):
    export_tflite(public_retinaface, "none", "fp32", (320, 320), tmp_path / "a", lambda stage: None)
    profile = profile_artifact(open_artifact(tmp_path / "a"), threads=1, runs=3)
    assert_consistent(profile)
    macs = sum(operator.macs or 0 for operator in profile.operators)
    assert macs == measure_cost(public_retinaface.detector, 320, 320).macs - SAVED_BY_MERGED_HEADS
    assert profile.runtime == "litert"
    assert any(operator.op.startswith("Convolution") and operator.macs for operator in profile.operators)
    assert any(operator.op == "RESIZE_NEAREST_NEIGHBOR" for operator in profile.operators)


def test_work_of_deformable_layers_is_what_torch_counts(tmp_path):
    detector = build_detector(VARIANTS["acwface_dcn"], seed=0)
    export_onnx(Checkpoint(detector, "test"), "native", (64, 64), tmp_path / "a", lambda stage: None, without=REWRITES)
    profile = profile_artifact(open_artifact(tmp_path / "a"), threads=2, runs=2)
    assert_consistent(profile)
    assert sum(operator.macs or 0 for operator in profile.operators) == measure_cost(detector, 64, 64).macs
    assert [kind.name for kind in profile.kinds if kind.op == "DeformConv"] == ["23 of them"]


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("MatMul", [(2, 5, 7), (2, 7, 3)], (2, 5, 3), 2 * 5 * 7 * 3),
        ("Gemm", [(7, 5), (7, 3)], (5, 3), 5 * 7 * 3),  # the first factor transposed
        ("ConvTranspose", [(1, 8, 4, 4), (8, 6, 2, 2)], (1, 6, 8, 8), 16 * 8 * 6 * 4),
        ("Conv", [(1, 8, 4, 4), (6, 4, 3, 3)], (1, 6, 4, 4), 16 * 6 * 4 * 9),  # two groups
        ("DeformSample", [(1, 27, 5, 4), (1, 20, 54), (6,)], (1, 6, 5, 4), 20 * 6 * 9 * 4),
        ("DeformConvTiled", [(1, 27, 5, 4), (1, 20, 8), (9, 8, 6), (6,)], (1, 6, 5, 4), 20 * 9 * (8 * 6 + 8 * 4)),
        ("Conv3x3", [(1, 5, 4, 8), (9, 8, 27), (27,)], (1, 5, 4, 27), 20 * 9 * 8 * 27),
        (
            "QDeformConvTiled",
            [(1, 5, 4, 27), (1, 5, 4, 8), (), (), (9, 8, 6), (6,), (6,), (), ()],
            (1, 5, 4, 6),
            20 * 9 * (8 * 6 + 8 * 4),
        ),
        ("QConv3x3", [(1, 5, 4, 8), (), (), (9, 8, 27), (27,), (27,)], (1, 5, 4, 27), 20 * 9 * 8 * 27),
        ("Add", [(4,), (4,)], (4,), None),
    ],
)
def test_multiply_accumulates_from_shapes(op, inputs, output, macs):
    assert count_macs(op, inputs, [output]) == macs


def test_peak_is_of_the_order_that_numpy_reaches():
    matrix = np.ones((512, 512), np.float32)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    peak = measure_peak(1)
    assert 0.1 < peak.gflops / (2 * 512**3 / min(times) / 1e9) < 10
    assert peak.copy_gbs > 0.1


def test_what_cannot_be_profiled_is_said(cli, artifact, tmp_path):
    code, _, error = cli("runtime_bench", "profile", tmp_path)
    assert code == 2
    assert "is no artifact" in error_line(error)
    assert cli("runtime_bench", "profile", artifact, "--runs", 0)[0] == 2

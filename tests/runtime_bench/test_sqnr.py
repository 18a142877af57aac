"""Signal to noise of every value: where a file was damaged is where it is lost, whatever the file calls its values."""

import json
import shutil

import msgspec
import numpy as np
import onnx
import pytest
import torch

from export.coreml_export import export_coreml
from export.tflite_export import export_tflite
from model.artifact import open_artifact
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.files import sha256
from runtime_bench.sqnr import EXACT_DB, ArtifactNoise, _Sums, measure_sqnr
from runtime_bench.traces import trace
from tests.conftest import error_line

LAYER = 30
"""Of the convolutions, the one that is damaged."""


@pytest.fixture(scope="module")
def tensor():
    return np.random.default_rng(0).uniform(-100, 100, (1, 3, 320, 320)).astype(np.float32)


def rewrite(artifact, path, change):
    """The artifact with ``change`` made to its ONNX model, under a precision of its own."""
    shutil.copytree(artifact, path)
    model = onnx.load(path / "model.onnx")
    change(model.graph)
    onnx.save(model, path / "model.onnx")
    manifest = json.loads((path / "detector.json").read_text())
    manifest["model"] |= {"sha256": sha256(path / "model.onnx"), "size_bytes": (path / "model.onnx").stat().st_size}
    (path / "detector.json").write_text(json.dumps(manifest | {"precision": "int8"}))
    return path


def damage(graph):
    """New names for everything, and noise on the bias of one convolution."""
    convolution = [node for node in graph.node if node.op_type == "Conv"][LAYER]
    bias = next(value for value in graph.initializer if value.name == convolution.input[2])
    values = onnx.numpy_helper.to_array(bias)
    damaged = values + np.where(np.arange(len(values)) % 2, 0.125, -0.125).astype(np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(damaged, bias.name))
    kept = {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = name if name in kept or not name else f"new{name}"
    for value in graph.initializer:
        value.name = f"new{value.name}"
    del graph.value_info[:]


def test_where_a_file_was_damaged_is_where_it_is_lost(artifact, tensor, tmp_path):
    original = open_artifact(artifact)
    damaged = open_artifact(rewrite(artifact, tmp_path / "damaged", damage))
    noise = measure_sqnr(damaged, original, [tensor])
    assert noise.unpaired == 0
    convolutions = [value for value in noise.values if value.operator == "Conv"]
    guilty = convolutions[LAYER]
    graph = onnx.load(artifact / "model.onnx").graph
    assert guilty.name == [node for node in graph.node if node.op_type == "Conv"][LAYER].output[0]
    assert max(noise.values, key=lambda value: value.lost_db) == guilty
    assert all(value.sqnr_db == EXACT_DB for value in convolutions[: LAYER - 5])
    # What a factor for each channel cannot explain of a constant that was added.
    exact = trace(original, tensor).arrays[guilty.name].astype(np.float64).reshape(guilty.shape[1], -1)
    found = exact + np.where(np.arange(len(exact)) % 2, 0.125, -0.125)[:, None]
    rest = [one - other * (one @ other) / (other @ other) for one, other in zip(exact, found, strict=True)]
    assert guilty.sqnr_db == pytest.approx(10 * np.log10(np.square(exact).sum() / np.square(rest).sum()), abs=0.01)
    assert noise.values[-1].sqnr_db < EXACT_DB


def test_the_same_file_has_lost_nothing(artifact, tensor):
    original = open_artifact(artifact)
    noise = measure_sqnr(original, original, [tensor])
    assert {value.sqnr_db for value in noise.values} == {EXACT_DB}
    assert {value.lost_db for value in noise.values} == {0}


def test_decibels():
    generator = np.random.default_rng(0)
    exact, error = generator.standard_normal((2, 1, 8, 40, 40))
    scale = generator.uniform(0.1, 10, (1, 8, 1, 1))
    plain, scaled, flat, silent = _Sums(), _Sums(), _Sums(), _Sums()
    for part in (slice(0, 30), slice(30, 40)):  # as photographs of two sizes
        plain.add(exact[:, :, part], (exact + 0.01 * error)[:, :, part], 1)
        scaled.add(exact[:, :, part].transpose(0, 2, 3, 1), (scale * (exact + 0.01 * error))[:, :, part].transpose(0, 2, 3, 1), -1)
    flat.add(exact.reshape(1, -1), exact.reshape(1, -1) * 1.1, 1)
    silent.add(exact, 0 * exact, 1)
    assert plain.decibels() == pytest.approx(40, abs=0.2)
    assert scaled.decibels() == pytest.approx(plain.decibels(), abs=1e-6)
    assert flat.decibels() == pytest.approx(20)
    assert silent.decibels() == 0
    pooled = _Sums()
    pooled.add(exact[:, :, :1, :1], 1.1 * exact[:, :, :1, :1], 1)
    assert pooled.decibels() == pytest.approx(20)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """TFLite and Core ML, in single and in half precision; 64x64."""
    folder = tmp_path_factory.mktemp("halves")
    checkpoint = Checkpoint(build_detector(VARIANTS["retinaface"], seed=0), "untrained")
    for precision in ("fp32", "fp16"):
        for kind, export in (("tflite", export_tflite), ("coreml", export_coreml)):
            export(checkpoint, "none", precision, (64, 64), folder / f"r-none-{precision}-64-{kind}", lambda stage: None)
    return folder


@pytest.mark.parametrize(("kind", "operator", "depth"), [("tflite", "CONV_2D", 0), ("coreml", "conv", 3)])
def test_half_precision_is_found_where_it_begins(cli, halves, tmp_path, kind, operator, depth):
    """In TFLite the weights have it from the first convolution on, in Core ML everything behind the first three."""
    path = halves / f"r-none-fp16-64-{kind}"
    code, said, _ = cli("runtime_bench", "sqnr", path, "--limit", 1, "--json", tmp_path / "s.json")
    assert code == 0
    (noise,) = msgspec.json.decode((tmp_path / "s.json").read_bytes(), type=list[ArtifactNoise])
    assert (noise.artifact, noise.reference, noise.photographs, noise.unpaired) == (path.name, f"r-none-fp32-64-{kind}", 1, 0)
    convolutions = [value for value in noise.values if value.operator == operator]
    assert all(value.sqnr_db > 100 for value in convolutions[:depth])
    assert 50 < convolutions[depth].sqnr_db < 85  # eleven bits
    assert convolutions[depth].lost_db > 20
    assert all(value.sqnr_db > 30 for value in noise.values)
    assert "first below 60 dB" in said


def test_tflite_values_are_those_of_torch(halves):
    """The first convolution, padded and without its activation, by torch."""
    artifact = open_artifact(halves / "r-none-fp32-64-tflite")
    picture = np.random.default_rng(0).uniform(-100, 100, (1, 3, 64, 64)).astype(np.float32)
    found = trace(artifact, picture)
    first = next(name for name, value in found.values.items() if value.operator == "CONV_2D")
    backbone = build_detector(VARIANTS["retinaface"], seed=0).eval().backbone
    convolution = next(module for module in backbone.modules() if isinstance(module, torch.nn.Conv2d))
    norm = next(module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))
    with torch.inference_mode():
        expected = norm(convolution(torch.from_numpy(picture)))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.arrays[first][0], expected, atol=1e-3)


def test_files_that_cannot_be_compared_are_refused(cli, artifact, halves, tmp_path):
    for arguments, said in (
        ((artifact,), "no FP32 artifact of the same network beside it"),
        ((artifact, "--reference", halves / "r-none-fp32-64-tflite"), "compare files"),
    ):
        code, _, error = cli("runtime_bench", "sqnr", *arguments, "--limit", 1, "--json", tmp_path / "s.json")
        assert code == 2
        assert said in error_line(error)

"""``run`` and ``detect`` from the outside."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from export.onnx_export import export_onnx
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.preprocess import load_image
from runtime_bench.__main__ import _drawing_names
from runtime_bench.drift import ap_drop
from runtime_bench.latency import MLPERF
from runtime_bench.record import Peak, SubsetAP, read_results
from runtime_bench.samples import PORTRAIT, sample_set
from runtime_bench.widerface import load_validation
from tests.conftest import error_line


def test_run_on_the_samples(cli, artifact, tmp_path):
    code, table, progress = cli("runtime_bench", "run", artifact, "--runs", 3, "--json", tmp_path / "r.json")
    assert code == 0
    assert "smoke test" in progress
    assert "small" in table
    (result,) = read_results(tmp_path / "r.json")
    fields = json.loads((tmp_path / "r.json").read_text())[0]
    wanted = {"artifact", "variant", "dcn", "precision", "runtime", "device", "threads", "size_bytes", "latency_ms", "ap", "drop", "images"}
    assert wanted <= set(fields)
    assert {"median", "p90", "p99"} <= set(fields["latency_ms"])
    assert set(fields["ap"]) == set(fields["drop"]) == {"easy", "medium", "hard"}
    assert result.images == len(sample_set())
    assert result.size_bytes == (artifact / "model.onnx").stat().st_size
    assert 0 < result.latency_ms.min <= result.latency_ms.median <= result.latency_ms.p90 <= result.latency_ms.p99
    # The network's own memory: its weights at least, far less than torch, which is not in the measuring process.
    assert 2e6 < result.peak_memory_bytes < 200e6
    assert result.first_run_ms > result.latency_ms.min * 0.9
    assert result.images_per_s < 1e3 / result.latency_ms.min
    assert result.protocol == "letterbox-320x320"
    assert abs(result.drop.hard) < 0.02
    assert (result.drift.pairs, result.drift.unpaired) in ((1, 0), (0, 0))  # the portrait; untrained weights find nothing


@pytest.mark.parametrize(("runs", "seconds"), [(40, 0.01), (2, 0.5)])
def test_mlperf_goes_on_until_there_are_enough_samples_and_seconds(cli, artifact, tmp_path, monkeypatch, runs, seconds):
    assert (MLPERF.runs, MLPERF.seconds, MLPERF.processes) == (1024, 60, 1)
    monkeypatch.setattr("runtime_bench.__main__.MLPERF", MLPERF._replace(runs=runs, seconds=seconds))
    code, table, _ = cli("runtime_bench", "run", artifact, "--mlperf", "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 0
    times = read_results(tmp_path / "r.json")[0].latency_ms
    assert (times.mlperf, times.processes) == (True, 1)
    assert times.runs >= runs
    assert times.seconds >= seconds
    assert times.runs == runs or times.seconds - 1e-3 * times.p99 < seconds  # and no longer
    assert "p90 is the figure to report" in table
    assert cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "MLPerf Mobile's single-stream timing: 90th percentile" in page
    assert f"{times.p90:.1f} ms (median {times.median:.1f})" in page
    assert cli("runtime_bench", "run", artifact, "--mlperf", "--runs", 3)[0] == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('"run_ms":[1.5,-0.5]', "the clock went backwards"),
        ('"run_ms":[1.5,0.0]', "the clock went backwards"),
        ('"run_ms":[1.5,null]', "cannot be read"),
        ('"run_ms":[1.5', "cannot be read"),
    ],
)
def test_times_that_cannot_be_are_refused(cli, artifact, tmp_path, monkeypatch, said, why):
    """Of a device whose clock was set, whose timer gives no number, or whose line was cut."""
    costs = '{"runtime":"r","runtime_version":"1","accelerator":"cpu","load_ms":1.0,"first_run_ms":2.0,"yardstick_ms":1.0,'
    text = costs + '"peak_memory_bytes":1,' + said + ("}" if said.endswith("]") else "")
    monkeypatch.setattr("runtime_bench.latency.in_clean_process", lambda *args, **kwargs: text)
    code, _, error = cli("runtime_bench", "run", artifact, "--json", tmp_path / "r.json")
    assert code == 2
    assert why in error_line(error)


def test_a_runtime_that_gives_no_numbers_is_said(cli, artifact, tmp_path, monkeypatch):
    from runtime_bench.runtimes.onnxruntime import OnnxRuntime

    original = OnnxRuntime.run
    monkeypatch.setattr(OnnxRuntime, "run", lambda self, tensor: original(self, tensor)._replace(scores=np.full(4200, np.nan, np.float32)))
    code, _, error = cli("runtime_bench", "run", artifact, "--runs", 1, "--json", tmp_path / "r.json")
    assert code == 2
    assert "onnxruntime gives values that are no numbers (NaN or infinity)" in error_line(error)


def test_where_the_time_of_an_evaluation_went_is_shown(cli, artifact, tmp_path):
    code, table, _ = cli("runtime_bench", "run", artifact, "--runs", 1, "--json", tmp_path / "r.json")
    assert code == 0
    (result,) = read_results(tmp_path / "r.json")
    times = result.evaluation_s
    assert 0 < times.scoring < times.total
    assert 0 < times.network < times.total
    row = next(line for line in table.partition("overhead %")[2].splitlines() if line.startswith("small"))
    assert row.split()[1:] == [
        *("3", f"{times.total:.1f}", f"{times.network:.1f}", f"{100 - 100 * times.network / times.total:.1f}"),
        *(f"{times.scoring:.2f}", f"{100 * times.scoring / times.network:.1f}"),
    ]


def test_the_bound_is_by_work_here_and_by_bytes_on_a_machine_with_slow_memory(cli, artifact, tmp_path, monkeypatch):
    """The public figure at 640x640 is 0.981 GMACs, a quarter at 320x320; 2100 anchors of 40x40, 20x20 and 10x10 places come out twice."""
    for peak, bound in ((Peak(gflops=100, copy_gbs=50), "work"), (Peak(gflops=100, copy_gbs=0.1), "bytes")):
        monkeypatch.setattr("runtime_bench.benchmark._peak", lambda threads, peak=peak: peak)
        code, table, _ = cli("runtime_bench", "run", artifact, "--runs", 1, "--limit", 1, "--json", tmp_path / "r.json")
        assert code == 0
        roofline = read_results(tmp_path / "r.json")[0].roofline
        assert roofline.peak == peak
        assert roofline.macs == pytest.approx(0.981e9 / 4, rel=1e-3)
        assert roofline.bytes == (artifact / "model.onnx").stat().st_size + 320 * 320 * 3 * 4 + 2 * 2100 * 15 * 4
        assert roofline.bound_ms == pytest.approx({"work": 1e3 * 2 * roofline.macs / 100e9, "bytes": 1e3 * roofline.bytes / 0.1e9}[bound])
        assert f"{roofline.bound_ms:.1f}" in table


def test_the_samples_faces_are_where_they_are_said_to_be(public_retinaface):
    """The hand-checked boxes against the public weights: both see the same faces, and none in the cat and the coffee."""
    from runtime_bench.detect import torch_detector
    from runtime_bench.evaluate import evaluate

    assert evaluate(torch_detector(public_retinaface, None), sample_set(), "test").ap == SubsetAP(100.0, 100.0, 100.0)


@pytest.fixture(scope="module")
def boxes_only(tmp_path_factory):
    """A checkpoint of a network without landmarks; untrained."""
    path = tmp_path_factory.mktemp("boxes") / "boxes.safetensors"
    save_checkpoint(build_detector(VARIANTS["retinaface_mobilenetv2"], seed=0), path, "untrained")
    return path


def test_a_network_without_landmarks_is_detected_with_drawn_and_judged(cli, boxes_only, tmp_path):
    code, said, _ = cli("runtime_bench", "detect", boxes_only, PORTRAIT, "--size", 128, "--score", 0.01, "--json", "--out", tmp_path)
    assert code == 0
    (photograph,) = json.loads(said)
    assert photograph["faces"]
    assert all(len(face["box"]) == 4 and face["landmarks"] == [] for face in photograph["faces"])
    drawn = load_image(photograph["drawing"]).astype(int)
    assert (np.abs(drawn - load_image(PORTRAIT)).max(axis=2) > 60).sum() > 100
    code, said, _ = cli("runtime_bench", "evaluate", boxes_only, "--size", 128, "--limit", 1, "--json")
    assert (code, json.loads(said)["variant"]) == (0, "retinaface_mobilenetv2")


def test_an_artifact_without_landmarks_is_judged_as_its_checkpoint_is(cli, boxes_only, tmp_path):
    export_onnx(load_checkpoint(boxes_only), "none", (64, 64), tmp_path / "a", lambda stage: None)
    code, table, _ = cli("runtime_bench", "run", tmp_path / "a", "--runs", 1, "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 0
    (result,) = read_results(tmp_path / "r.json")
    assert (result.drift.landmarks, result.drift.unpaired) == (None, 0)
    assert cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path)[0] == 0
    code, said, _ = cli("runtime_bench", "evaluate", tmp_path / "a", "--limit", 1)
    assert code == 0
    assert f"scaling letterbox-64x64, onnxruntime {onnxruntime.__version__})" in said
    for words in (("--size", 64), ("--protocol", "original-flip")):
        code, _, error = cli("runtime_bench", "evaluate", tmp_path / "a", *words)
        assert (code, "checkpoint" in error_line(error)) == (2, True)


def test_evaluate_a_checkpoint(cli, public_weights):
    code, said, _ = cli("runtime_bench", "evaluate", public_weights, "--json")
    assert code == 0
    record = json.loads(said)
    assert record["ap"] == {"easy": 100.0, "medium": 100.0, "hard": 100.0}
    assert (record["protocol"], record["variant"], record["images"]) == ("original", "retinaface", 3)
    code, said, _ = cli("runtime_bench", "evaluate", public_weights, "--size", 320, "--limit", 1)
    assert code == 0
    assert "easy 100.00" in said
    assert "letterbox-320x320" in said


def test_drop_is_positive_for_a_loss():
    assert ap_drop(SubsetAP(90.0, 80.0, None), SubsetAP(89.0, 82.0, None)) == SubsetAP(1.0, -2.0, None)


def test_a_bad_artifact_is_reported_and_the_rest_go_on(cli, artifact, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    (broken / "model.onnx").unlink()
    code, table, progress = cli("runtime_bench", "run", broken, artifact, "--runs", 1, "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 2
    assert "model.onnx is missing; export the artifact again" in error_line(progress)
    assert [result.artifact for result in read_results(tmp_path / "r.json")] == ["small"]
    assert "small" in table


def test_an_unreadable_image_is_reported_and_left_out(cli, artifact, tmp_path, wider_root):
    names = (wider_root / "val" / "dev_list.txt").read_text().split()[:3]
    root = tmp_path / "wider"
    shutil.copytree(wider_root / "val" / "ground_truth", root / "val" / "ground_truth")
    for name in names:
        (root / "val" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(wider_root / "val" / "images" / name, root / "val" / "images" / name)
    (root / "val" / "images" / names[1]).write_bytes(b"\xff\xd8 no more")
    (tmp_path / "list.txt").write_text("\n".join(names))
    code, _, progress = cli(
        "runtime_bench", "run", artifact, "--wider", root, "--list", tmp_path / "list.txt", "--runs", 1, "--json", tmp_path / "r.json"
    )
    assert code == 2
    assert "left out" in progress
    (result,) = read_results(tmp_path / "r.json")
    assert (result.images, result.failed_images) == (2, (names[1],))
    assert len(load_validation(root, tmp_path / "list.txt")) == 3


def test_interrupted_measurement_keeps_what_was_measured(cli, artifact, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime_bench.benchmark.evaluate", interrupt)
    code, table, progress = cli("runtime_bench", "run", artifact, "--runs", 1, "--json", tmp_path / "r.json")
    assert code == 130
    assert "interrupted" in progress
    (result,) = read_results(tmp_path / "r.json")
    assert result.latency_ms.median > 0
    assert result.ap is None
    assert "small" in table


def test_a_runtime_too_old_for_the_model_is_said(cli, artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.16.3")
    code, _, error = cli("runtime_bench", "detect", artifact, PORTRAIT, "--out", tmp_path)
    assert code == 2
    assert "needs onnxruntime 1.17 or newer, 1.16.3 is installed" in error_line(error)


def test_run_refuses_what_makes_no_sense(cli, artifact, tmp_path):
    for arguments, said in (
        (("--list", "x.txt"), "pass --wider"),
        (("--wider", tmp_path), "no WIDER FACE ground truth"),
    ):
        code, _, error = cli("runtime_bench", "run", artifact, *arguments)
        assert code == 2
        assert said in error_line(error)
    assert cli("runtime_bench", "run", artifact, "--limit", 0)[0] == 2


def test_detect_draws_and_lists(cli, artifact, public_weights, tmp_path):
    twin = tmp_path / "elsewhere" / PORTRAIT.name
    twin.parent.mkdir()
    Image.open(PORTRAIT).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(twin)
    code, said, _ = cli("runtime_bench", "detect", artifact, PORTRAIT, "--out", tmp_path / "drawn", twin, "--json")
    assert code == 0
    first, second = json.loads(said)
    assert said == json.dumps([first, second], indent=2) + "\n"
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"astronaut.jpg", "astronaut-2.jpg"}
    (face,), (mirrored,) = first["faces"], second["faces"]
    assert face["score"] > 0.9
    assert abs(face["box"][0] - (512 - mirrored["box"][2])) < 8
    # As seen in the image: the left eye stays on the left.
    assert face["landmarks"][0][0] < face["landmarks"][1][0]
    assert mirrored["landmarks"][0][0] < mirrored["landmarks"][1][0]
    drawn = load_image(tmp_path / "drawn" / "astronaut.jpg").astype(int)
    changed = np.abs(drawn - load_image(PORTRAIT)).max(axis=2) > 80
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert columns[0] >= face["box"][0] - 4  # nothing far from the face
    assert rows[-1] <= face["box"][3] + 4
    lower_edge = changed[round(face["box"][3]) - 1 :, round(face["box"][0]) + 5 : round(face["box"][2]) - 5].any(axis=0)
    assert lower_edge.mean() > 0.8


def test_detect_with_a_checkpoint_turns_the_photograph_upright(cli, public_weights, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(PORTRAIT).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    code, said, _ = cli("runtime_bench", "detect", public_weights, tmp_path / "turned.png", PORTRAIT, "--out", tmp_path, "--json")
    assert code == 0
    turned, upright = json.loads(said)
    assert turned["faces"] == upright["faces"]


def test_detect_goes_on_after_a_bad_photograph(cli, artifact, tmp_path):
    (tmp_path / "bad.jpg").write_text("no")
    code, said, error = cli("runtime_bench", "detect", artifact, tmp_path / "bad.jpg", PORTRAIT, "--out", tmp_path / "drawn")
    assert code == 2
    assert "bad.jpg is not an image" in error_line(error)
    assert "astronaut.jpg" in said
    assert cli("runtime_bench", "detect", artifact, tmp_path / "bad.jpg", "--json")[1] == "[]\n"


def test_photographs_of_one_name_get_drawings_of_their_own():
    photos = [Path(name) for name in ("a.jpg", "x/a.png", "a-2.jpg", "a.gif", "b.jpg", "a-2.png", "a.bmp")]
    names = [path.name for path in _drawing_names(photos, Path("out"))]
    assert names == ["a.jpg", "a-2.jpg", "a-2-2.jpg", "a-3.jpg", "b.jpg", "a-2-3.jpg", "a-4.jpg"]


def test_detect_on_odd_photographs(cli, artifact, tmp_path):
    for name, size, mode in (
        ("dot.png", (1, 1), "RGB"),
        ("wide.png", (20_000, 3), "L"),
        ("clear.png", (40, 30), "RGBA"),
        ("press.jpg", (40, 30), "CMYK"),
    ):
        Image.new(mode, size).save(tmp_path / name)
    photographs = [tmp_path / name for name in ("dot.png", "wide.png", "clear.png", "press.jpg")]
    code, said, error = cli("runtime_bench", "detect", artifact, *photographs, "--out", tmp_path / "drawn")
    assert (code, error) == (0, "")
    assert len(said.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--score", 2), "--score 2.0: a number from 0 to 1"), (("--size", 320), "--size goes with a checkpoint")],
)
def test_detect_refuses_what_makes_no_sense(cli, artifact, arguments, said):
    code, _, error = cli("runtime_bench", "detect", artifact, PORTRAIT, *arguments)
    assert code == 2
    assert said in error_line(error)


def test_the_measuring_process_does_not_load_torch(artifact):
    """Its memory and threads would be in the figures."""
    script = (
        "import sys, runpy\n"
        "sys.argv = ['latency', sys.argv[2], sys.argv[1], '--runs', '1']\n"
        "import runtime_bench.latency, numpy\n"
        "numpy.save(sys.argv[1], numpy.zeros((1, 3, 320, 320), 'float32'))\n"
        "runtime_bench.latency.main()\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(artifact), str(artifact.parent / "input.npy")], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr

"""Two runs of the benchmark: what changed beyond noise, and going on with a run that was interrupted."""

import json
import shutil

import msgspec
import numpy as np
import pytest

from model.files import write_json
from runtime_bench.changes import find_changes
from runtime_bench.record import Latency, Result, SubsetAP, SubsetInterval, read_results
from tests.conftest import error_line

RESULT = Result(
    artifact="a", variant="retinaface", dcn="none", precision="fp32", format="onnx", weights="none", checkpoint="c", runtime="onnxruntime",
    runtime_version="1", device="local", machine="m", threads=1, size_bytes=1, load_ms=1.0,
    latency_ms=Latency(10, 11, 12, 9, 50, 10, 9.5, 5),
    latency_input=(64, 64), peak_memory_bytes=1, protocol="letterbox-64x64", dataset="d", images=20, ap=SubsetAP(90, 80, None),
    ap_reference=SubsetAP(91, 81, None), drop=SubsetAP(1, 1, None), drop_interval=SubsetInterval((0.8, 1.2), (0.5, 1.5), None),
)  # fmt: skip


def with_median(median: float) -> Result:
    return msgspec.structs.replace(RESULT, latency_ms=Latency(median, median * 1.1, 99, median * 0.9, 50, 10, median * 0.95, 5))


def with_easy(drop: float, half: float = 0.2) -> Result:
    return msgspec.structs.replace(
        RESULT,
        ap=SubsetAP(91 - drop, 80, None),
        drop=SubsetAP(drop, 1, None),
        drop_interval=SubsetInterval((drop - half, drop + half), (0.5, 1.5), None),
    )


def change(after: Result, figure: str, **limits):
    changes = find_changes([RESULT], [after], **{"max_slower": 10, "max_loss": 0.5} | limits)
    (found,) = (one for one in changes if one.figure == figure)
    return found.beyond_noise, found.beyond_limit


@pytest.mark.parametrize(
    ("median", "expected"),
    [(10, (False, False)), (10.9, (False, False)), (11.05, (True, True)), (9.0, (True, False)), (9.55, (False, False)), (30, (True, True))],
)
def test_a_median_has_changed_beyond_noise_if_neither_is_within_the_others_spread(median, expected):
    assert change(with_median(median), "median") == expected
    assert change(with_median(median), "median", max_slower=1000) == (expected[0], False)


def test_a_noisy_run_shows_no_change():
    noisy = msgspec.structs.replace(RESULT, latency_ms=Latency(12, 15, 20, 9, 50, 10, 9.8, 5))
    assert change(noisy, "median") == (False, False)


@pytest.mark.parametrize(
    ("median", "yardstick", "beyond"),
    [(14, 1.4, False), (14, 1.0, True), (20, 1.4, True), (14, None, True), (10, 1.4, False), (7, 0.7, False)],
)
def test_a_machine_that_was_slower_is_no_change(median, yardstick, beyond):
    """The earlier run: 10 ms, with a yardstick of 1."""
    times = Latency(median, median * 1.05, 99, median * 0.9, 50, 10, median * 0.95, 5, yardstick)
    old, new = (msgspec.structs.replace(RESULT, latency_ms=one) for one in (Latency(10, 10.5, 12, 9, 50, 10, 9.5, 5, 1.0), times))
    found = next(one for one in find_changes([old], [new], 10, 0.5) if one.figure == "median")
    assert found.beyond_noise == beyond


@pytest.mark.parametrize(
    ("drop", "half", "expected"),
    [(1, 0.2, (False, False)),
     (1.15, 0.01, (False, False)), (1.3, 0.1, (True, False)), (1.6, 0.1, (True, True)), (1.6, 0.7, (False, False)),
     (0.2, 0.1, (True, False)), (1.004, 0.001, (False, False))],
)  # fmt: skip
def test_ap_has_changed_beyond_noise_if_neither_drop_is_within_the_others_interval(drop, half, expected):
    assert change(with_easy(drop, half), "AP easy, letterbox-64x64") == expected


def test_the_smallest_changes_are_rounding_even_without_intervals():
    before = msgspec.structs.replace(RESULT, drop_interval=None)
    for ap, beyond in ((89.996, False), (89.98, True)):
        after = msgspec.structs.replace(before, ap=SubsetAP(ap, 80, None), drop=SubsetAP(91 - ap, 1, None))
        found = next(one for one in find_changes([before], [after], 10, 0.5) if one.figure == "AP easy, letterbox-64x64")
        assert found.beyond_noise == beyond


def test_times_by_other_rules_are_not_compared():
    other = msgspec.structs.replace(RESULT, latency_ms=msgspec.structs.replace(RESULT.latency_ms, mlperf=True))
    found = next(one for one in find_changes([RESULT], [other], 0, 0) if one.figure == "median")
    assert (found.before, "by other rules" in found.why) == (None, True)


@pytest.mark.parametrize("field", ["min", "median", "p90", "load_ms"])
def test_records_whose_times_cannot_be_true_are_refused(cli, tmp_path, field):
    wrong = (
        msgspec.structs.replace(RESULT, load_ms=-1.0)
        if field == "load_ms"
        else msgspec.structs.replace(RESULT, latency_ms=msgspec.structs.replace(RESULT.latency_ms, **{field: -1.0}))
    )
    write_json(tmp_path / "wrong.json", [RESULT, wrong])
    code, _, error = cli("runtime_bench", "report", tmp_path / "wrong.json", "--out", tmp_path)
    assert code == 2
    assert "wrong.json: a: its times cannot be true (the clock went backwards" in error_line(error)


def test_what_cannot_be_compared_is_said_and_is_no_change():
    other = msgspec.structs.replace(RESULT, threads=2, dataset_digest="other")
    unknown = msgspec.structs.replace(RESULT, artifact="b")
    changes = find_changes([RESULT], [other, unknown], 0, 0)
    assert [(one.artifact, one.figure) for one in changes] == [("a", "median"), ("a", "AP"), ("b", "all")]
    assert all(one.why and not one.beyond_noise for one in changes)


def test_run_compares_and_fails_beyond_the_limit(cli, artifact, tmp_path):
    """Against doctored records: ten times as fast as this machine can be, and of another checkpoint."""
    arguments = ("runtime_bench", "run", artifact, "--runs", 6, "--limit", 1)
    assert cli(*arguments, "--json", tmp_path / "old.json")[0] == 0
    (old,) = read_results(tmp_path / "old.json")
    assert (old.latency_ms.processes, old.latency_ms.runs) == (5, 6)
    assert old.latency_ms.min <= old.latency_ms.p10 <= old.latency_ms.median

    latency = {
        field: value / 10
        for field, value in msgspec.structs.asdict(old.latency_ms).items()
        if field not in ("runs", "warmup", "processes", "yardstick_ms", "seconds", "mlperf")
    }
    faster = msgspec.structs.replace(old, latency_ms=msgspec.structs.replace(old.latency_ms, **latency))
    write_json(tmp_path / "faster.json", [faster])
    code, said, _ = cli(*arguments, "--json", tmp_path / "new.json", "--compare", tmp_path / "faster.json")
    assert code == 1
    assert "beyond the limit" in said
    assert "small" in said.partition("changed beyond noise")[2]
    code, said, _ = cli(*arguments, "--json", tmp_path / "new.json", "--compare", tmp_path / "faster.json", "--max-slower", 1e9, "--resume")
    assert code == 0

    write_json(tmp_path / "foreign.json", [msgspec.structs.replace(old, checkpoint="0" * 64)])
    code, _, error = cli(*arguments, "--json", tmp_path / "new.json", "--compare", tmp_path / "foreign.json")
    assert code == 2
    assert "compare files of one checkpoint" in error_line(error)

    (tmp_path / "cut.json").write_bytes((tmp_path / "old.json").read_bytes()[:-100])
    code, _, error = cli(*arguments, "--compare", tmp_path / "cut.json")
    assert code == 2
    assert "cut.json" in error_line(error)
    assert cli(*arguments, "--max-loss", "nan")[0] == 2


@pytest.fixture
def counted(monkeypatch):
    """How often latency was measured and photographs were evaluated."""
    from runtime_bench import benchmark, drift

    counts = {"measure_latency": 0, "evaluate": 0}
    for module in (benchmark, drift):
        for name in counts:
            if original := getattr(module, name, None):

                def wrapped(*args, _original=original, _name=name, **kwargs):
                    counts[_name] += 1
                    return _original(*args, **kwargs)

                monkeypatch.setattr(module, name, wrapped)
    return counts


def test_an_interrupted_run_goes_on_from_its_record(cli, artifact, tmp_path, monkeypatch, counted):
    arguments = ("runtime_bench", "run", artifact, "--runs", 2, "--limit", 1, "--json", tmp_path / "r.json")
    with monkeypatch.context() as patch:
        patch.setattr("runtime_bench.benchmark.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        code, said, _ = cli(*arguments)
    assert code == 130
    assert "--resume" in said
    (interrupted,) = read_results(tmp_path / "r.json")
    assert counted == {"measure_latency": 1, "evaluate": 0}

    assert cli(*arguments, "--resume")[0] == 0
    (finished,) = read_results(tmp_path / "r.json")
    assert counted == {"measure_latency": 1, "evaluate": 2}  # the artifact, and what it is judged by
    assert finished.latency_ms == interrupted.latency_ms
    assert finished.images == 1

    # Nothing is left to do; without the flag it is a new measurement.
    assert cli(*arguments, "--resume")[0] == 0
    assert counted == {"measure_latency": 1, "evaluate": 2}
    assert read_results(tmp_path / "r.json") == [finished]
    assert cli(*arguments)[0] == 0
    assert counted == {"measure_latency": 2, "evaluate": 4}


def test_records_of_other_inputs_are_not_gone_on_from(cli, artifact, tmp_path, counted):
    arguments = ("runtime_bench", "run", artifact, "--limit", 1, "--json", tmp_path / "r.json")
    assert cli(*arguments, "--runs", 2)[0] == 0
    for number, others in enumerate((("--runs", 3), ("--runs", 2, "--threads", 2), ("--runs", 2, "--limit", 2)), 2):
        assert cli(*arguments, *others, "--resume")[0] == 0
        assert counted["measure_latency"] == number
    # The same folder with another thing in it.
    manifest = artifact / "detector.json"
    text = manifest.read_text()
    try:
        fields = json.loads(text)
        manifest.write_text(json.dumps(fields | {"thresholds": fields["thresholds"] | {"score": 0.25}}))
        assert cli(*arguments, "--runs", 2, "--limit", 2, "--resume")[0] == 0
    finally:
        manifest.write_text(text)
    assert counted["measure_latency"] == 5


def test_a_resumed_run_writes_no_record_of_other_inputs(cli, artifact, tmp_path, monkeypatch):
    """The second artifact's old record is of another number of runs; the run is stopped before it comes to it."""
    second = tmp_path / "second"
    shutil.copytree(artifact, second)
    arguments = ("runtime_bench", "run", artifact, second, "--limit", 1, "--json", tmp_path / "r.json")
    assert cli(*arguments, "--runs", 1)[0] == 0
    assert [result.artifact for result in read_results(tmp_path / "r.json")] == ["small", "second"]
    with monkeypatch.context() as patch:
        patch.setattr("runtime_bench.benchmark.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*arguments, "--runs", 2, "--resume")[0] == 130
    assert [(result.artifact, result.latency_ms.runs) for result in read_results(tmp_path / "r.json")] == [("small", 2)]


def test_artifacts_of_one_name_do_not_share_a_record(cli, artifact, tmp_path):
    code, _, error = cli("runtime_bench", "run", artifact, artifact.parent / "x" / ".." / artifact.name)
    assert code == 2
    assert "two artifacts are called small" in error_line(error)


def test_the_digest_of_photographs_is_of_their_contents(tmp_path):
    from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace

    (tmp_path / "a.jpg").write_bytes(b"one")

    def digest(**changed):
        boxes = np.asarray(changed.get("boxes", [[0, 0, 9, 9]]), np.float32)
        subsets = dict.fromkeys(SUBSETS, np.full(len(boxes), changed.get("inside", True)))
        return WiderFace(tmp_path, {"a.jpg": GroundTruth(boxes, subsets)}, "t").digest()

    first = digest()
    assert first == digest()
    assert len({first, digest(boxes=[[0, 0, 9, 8]]), digest(inside=False)}) == 3
    (tmp_path / "a.jpg").write_bytes(b"two")
    assert digest() != first

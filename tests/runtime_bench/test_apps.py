"""Records of the apps: what both write is read, what has gone wrong on the way is said."""

import json

import msgspec
import pytest

from model.artifact import open_artifact
from runtime_bench.record import read_results
from tests.conftest import error_line
from tests.golden.make_golden import FOLDER

WRITTEN = json.loads((FOLDER / "record.json").read_text())["records"][0]
"""What both apps write, field by field."""


@pytest.fixture
def bring(cli, tmp_path):
    """Import a record with some fields changed, or other text: exit code, stdout, stderr."""

    def run(text=None, **changes):
        record = WRITTEN | {"device": "Apple iPhone15,2, iOS 18.1, cpuAndGPU", "runtime": "coreml", "format": "coreml"} | changes
        (tmp_path / "phone.json").write_text(json.dumps([record]) if text is None else text)
        return cli("runtime_bench", "import", tmp_path / "phone.json", "--artifacts", tmp_path, "--json", tmp_path / "ios.json")

    return run


def test_records_are_gathered_and_reported(cli, bring, tmp_path):
    assert bring()[0] == 0
    code, table, _ = bring(device="Apple iPhone15,2, iOS 18.1, all", latency_ms=WRITTEN["latency_ms"] | {"min": 10.0})
    assert code == 0
    assert "on Apple iPhone15,2, iOS 18.1, all" in table
    assert bring(latency_ms=WRITTEN["latency_ms"] | {"median": 11.5})[0] == 0  # measured again
    first, second = read_results(tmp_path / "ios.json")
    assert (first.latency_ms.median, second.latency_ms.min) == (11.5, 10.0)
    assert first.accelerator == ""
    assert cli("runtime_bench", "report", tmp_path / "ios.json", "--out", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "accelerator not known" in page
    assert "Core ML does not tell which processors ran a network" in page
    assert "no phone has been measured" not in page


@pytest.mark.parametrize(("device", "ran_on"), [("Acme P1, Android 14, gpu", "gpu"), ("Acme P1, Android 14", "")])
def test_what_ran_a_network_on_android_is_known(bring, tmp_path, device, ran_on):
    assert bring(device=device, runtime="litert", format="tflite")[0] == 0
    assert read_results(tmp_path / "ios.json")[0].accelerator == ran_on


def test_a_folder_of_records(cli, bring, tmp_path):
    (tmp_path / "phones").mkdir()
    for name in ("one", "two"):
        (tmp_path / "phones" / f"{name}.json").write_text(json.dumps([WRITTEN | {"device": name}]))
    assert cli("runtime_bench", "import", tmp_path / "phones", "--json", tmp_path / "ios.json")[0] == 0
    assert [result.device for result in read_results(tmp_path / "ios.json")] == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": json.dumps([WRITTEN])[:-40]}, "phone.json: "),
        ({"text": json.dumps([WRITTEN]).replace("81.5", "NaN")}, "phone.json: "),
        ({"text": ""}, "phone.json: "),
        ({"text": "[]"}, "is no record of an app's benchmark"),
        ({"text": json.dumps(WRITTEN)}, "phone.json: "),
        ({"load_ms": None, "latency_ms": None}, "is no record of an app's benchmark"),
        ({"device": "local"}, "is no record of an app's benchmark"),
        ({"latency_ms": WRITTEN["latency_ms"] | {"min": -0.5}}, "the clock went backwards"),
        ({"latency_ms": WRITTEN["latency_ms"] | {"median": None}}, "phone.json: "),
        ({"load_ms": -81.5}, "the clock went backwards"),
        ({"temperature": 40}, "phone.json: "),
    ],
)
def test_records_that_went_wrong_are_refused(bring, tmp_path, changes, said):
    code, _, error = bring(**changes)
    assert code == 2
    assert said in error_line(error)
    assert not (tmp_path / "ios.json").exists()


def test_records_of_another_file_or_checkpoint_are_refused(bring, artifact, tmp_path):
    (tmp_path / "small").symlink_to(artifact)
    manifest = open_artifact(artifact).manifest
    mine = {"checkpoint": manifest.reference.sha256, "size_bytes": manifest.model.size_bytes, "format": "onnx", "precision": "fp32"}
    assert bring(artifact="small", **mine)[0] == 0
    before = (tmp_path / "ios.json").read_bytes()
    code, _, error = bring(artifact="small", **mine | {"size_bytes": 7})
    assert code == 2
    assert "is of another file than" in error_line(error)
    # Without the artifact at hand, the records themselves tell.
    (tmp_path / "small").unlink()
    code, _, error = bring(artifact="small", **mine | {"checkpoint": "0" * 64})
    assert code == 2
    assert "was made from checkpoint 000000000000 in one record" in error_line(error)
    assert (tmp_path / "ios.json").read_bytes() == before


def test_a_report_of_two_checkpoints_under_one_name_is_refused(cli, tmp_path):
    for name, checkpoint in (("one", "1" * 64), ("two", "2" * 64)):
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode([WRITTEN | {"checkpoint": checkpoint}]))
    code, _, error = cli("runtime_bench", "report", tmp_path / "one.json", tmp_path / "two.json", "--out", tmp_path)
    assert code == 2
    assert "in one record, from 111111111111 in another" in error_line(error)
    assert not (tmp_path / "report.html").exists()

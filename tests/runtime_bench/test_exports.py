"""All exports in one table: those that failed are rows, too."""

import msgspec

from export.onnx_export import export_onnx
from model.checkpoint import Checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from runtime_bench.exports import Export


def test_a_failed_export_is_a_row_with_its_reason(cli, tmp_path):
    good, old, missing = (tmp_path / f"retinaface-none-fp32-64-{name}" for name in ("onnx", "old", "missing"))
    for folder in (good, old):
        export_onnx(Checkpoint(build_detector(VARIANTS["retinaface"], seed=0), "untrained"), "none", (64, 64), folder, lambda stage: None)
    failures = tmp_path / "failures"
    failures.mkdir()
    # An artifact of an earlier export lies there still.
    (failures / f"{old.name}.txt").write_text("converting ...\nerror: the converter gave up; see x.log\nmake: *** Error 2\n")
    code, said, _ = cli(
        *("runtime_bench", "exports", good, old, missing, "--failures", failures),
        *("--limit", 1, "--runs", 2, "--json", tmp_path / "exports.json"),
    )
    assert code == 2
    first, second, third = msgspec.json.decode((tmp_path / "exports.json").read_bytes(), type=list[Export])
    assert first.reason is None
    assert first.result.artifact == first.artifact == good.name
    assert first.parity.anchors > 0
    assert (second.artifact, second.reason, second.result) == (old.name, "the converter gave up; see x.log", None)
    assert "detector.json is missing" in third.reason
    table, _, below = said.partition(f"{old.name}: the converter gave up")
    assert all(name in table for name in (good.name, old.name, missing.name))
    assert "detector.json is missing" in below

    code, _, _ = cli("runtime_bench", "exports", good, "--limit", 1, "--runs", 2, "--json", tmp_path / "exports.json")
    assert code == 0

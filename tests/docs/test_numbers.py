"""Tables are made from records, and from records of the same measurement only."""

import json
import os
import re
import shutil

import pytest

from docs.numbers import MADE_BY, RECORDS, ROOT, TABLES, WHOLE, loose, main, outdated, pages, read_records, rewrite, take
from model.cli import run_command
from model.errors import UserError


@pytest.fixture
def records(tmp_path):
    """A copy of the published ones."""
    return shutil.copytree(RECORDS, tmp_path / "records")


def change(path, row=0, **fields):
    rows = json.loads(path.read_bytes())
    rows[row].update(fields)
    path.write_text(json.dumps(rows))
    return rows[row]


def older(folder):
    for path in folder.iterdir():
        os.utime(path, (0, 0))


def test_texts_say_what_the_records_say():
    published = read_records(RECORDS)
    assert [path.name for path in pages(ROOT) if (text := path.read_text()) != rewrite(text, published)] == [], "run: make readme-numbers"


def test_no_measured_figure_stands_outside_the_tables():
    assert [f"{path.name}: {line}" for path in pages(ROOT) for line in loose(path.read_text())] == []
    for said in ("takes 23.4 ms here", "1.42x faster", "89.31 on Easy"):
        assert loose(f"<!-- numbers: home -->\n{said}\n<!-- end -->\nIt {said}.") == [f"It {said}."]
    assert not loose("scores to 1e-4, 0.05 px, Python 3.12, 640x640, at least 1,024 and 60 seconds")


def test_figures_are_of_the_weights_that_the_project_ships(tmp_path):
    published, weights = read_records(RECORDS), ROOT / "model" / "weights"
    assert outdated(published, weights) == []
    (tmp_path / "acwface_dcn.safetensors").write_bytes(b"others")
    (tmp_path / "retinaface.safetensors").write_bytes(b"others, too")
    assert len(outdated(published, tmp_path)) == len(published["exports.json"])


def test_every_table_is_on_a_page_and_every_record_in_a_table():
    text = "".join(path.read_text() for path in pages(ROOT))
    assert [name for name in TABLES if f"<!-- numbers: {name} -->" not in text] == []
    assert {path.name for path in RECORDS.iterdir()} <= set(MADE_BY)


def test_another_record_is_another_text(records):
    text = (ROOT / "README.md").read_text()
    result = json.loads((records / "exports.json").read_bytes())[2]["result"]
    change(records / "exports.json", row=2, result=result | {"size_bytes": 9_870_000})
    assert "| 9.87 |" in rewrite(text, read_records(records))
    rows = json.loads((records / "speed.json").read_bytes())
    for row in rows:
        row["median_ms"] *= 2
    (records / "speed.json").write_text(json.dumps(rows))
    retinaface = next(row for row in rows if row["artifact"] == "retinaface-none-fp32-640-onnx" and row["threads"] == 1)
    assert f"| {retinaface['median_ms']:.1f} |" in rewrite(text, read_records(records))


def test_newer_records_replace_those_of_the_same_photographs(records, tmp_path):
    bench = shutil.copytree(records, tmp_path / "bench")
    older(records)
    name = change(bench / "onnx.json", ap={"easy": 1.0, "medium": 2.0, "hard": None}, curves=[1], examples=[2], drift={})["artifact"]
    assert [line for line in take(bench, records) if "onnx.json" in line] == [f"{records / 'onnx.json'}: taken from {bench / 'onnx.json'}"]
    row = json.loads((records / "onnx.json").read_bytes())[0]
    assert (row["artifact"], row["ap"]["medium"]) == (name, 2.0)
    assert not {"curves", "examples", "drift"} & set(row)
    assert f"| {name} | letterbox-640x640 | 1.00 | 2.00 | - |" in rewrite("<!-- numbers: accuracy -->\n<!-- end -->", read_records(records))


def test_a_trial_on_a_few_photographs_is_not_published(records, tmp_path):
    bench = shutil.copytree(records, tmp_path / "bench")
    older(records)
    before = (records / "onnx.json").read_bytes()
    rows = json.loads(before)
    trial = [rows[0] | {"dataset": f"{WHOLE[:-1]}, first 20)"}, rows[0] | {"artifact": "new", "dataset": "the sample photographs"}]
    failed = {"artifact": "not made", "reason": "r", "file": None, "parity": None, "result": None}
    (bench / "exports.json").write_text(json.dumps([failed]))
    (bench / "onnx.json").write_text(json.dumps(trial))
    said = take(bench, records)
    assert sum("left out" in line and "was judged by" in line for line in said) == 3
    assert "not made" not in (records / "exports.json").read_text()
    assert (records / "onnx.json").read_bytes() == before


def test_all_photographs_replace_some(records, tmp_path):
    (bench := tmp_path / "bench").mkdir()
    row = change(records / "int8.json", dataset=f"{WHOLE[:-1]}, first 30)")
    older(records)
    (bench / "int8.json").write_text(json.dumps([row | {"dataset": WHOLE}]))
    take(bench, records)
    assert json.loads((records / "int8.json").read_bytes())[0]["dataset"] == WHOLE


def test_times_of_another_machine_are_left_out(records, tmp_path):
    (bench := tmp_path / "bench").mkdir()
    older(records)
    row = json.loads((records / "int8.json").read_bytes())[0]
    fresh = row | {"ap_int8": {"easy": 1.0, "medium": 2.0, "hard": 3.0}, "int8_ms": 9e9}
    for machine, taken in ((None, False), ("another", False), (row["machine"], True)):
        (bench / "int8.json").write_text(json.dumps([fresh | {"machine": machine}]))
        assert any("times left out" in line for line in take(bench, records)) is not taken
        published = json.loads((records / "int8.json").read_bytes())[0]
        assert published["ap_int8"] == fresh["ap_int8"]
        assert (published["machine"], published["int8_ms"]) == (row["machine"], fresh["int8_ms"] if taken else row["int8_ms"])
        older(records)


def test_a_new_artifact_is_published_when_all_photographs_have_judged_it(records, tmp_path):
    (bench := tmp_path / "bench").mkdir()
    name = "acwface_dcn-custom-int8-640-onnx"
    published = json.loads((records / "int8.json").read_bytes())
    others = json.dumps([row for row in published if row["artifact"] != name])
    (records / "int8.json").write_text(others)
    older(records)
    row = next(row for row in published if row["artifact"] == name)
    (bench / "int8.json").write_text(json.dumps([row]))
    take(bench, records)
    assert f"| {name} | 0." in rewrite("<!-- numbers: home -->\n<!-- end -->", read_records(records))
    (bench / "int8.json").write_text(json.dumps([row | {"protocol": "original"}]))
    (records / "int8.json").write_text(others)
    older(records)
    take(bench, records)
    assert name in (records / "int8.json").read_text()
    assert name not in rewrite("<!-- numbers: home -->\n<!-- end -->", read_records(records))  # at another size


def test_files_that_were_kept_beside_each_other_count(records, tmp_path):
    (bench := tmp_path / "bench").mkdir()
    older(records)
    row = json.loads((records / "int8.json").read_bytes())[-1] | {"dataset": WHOLE, "format": "onnx", "passed": False}
    for name, when, ap in (("int8-b.json", 10, 11.0), ("int8-a.json", 20, 22.0), ("int8x.json", 30, 33.0)):
        (bench / name).write_text(json.dumps([row | {"artifact": "one", "ap_int8": row["ap_int8"] | {"hard": ap}}]))
        os.utime(bench / name, (when, when))
    assert len(take(bench, records)) == 2
    assert re.search(
        r"^\| one, refused \| 358 \|.* 22\.00 \|", rewrite("<!-- numbers: int8 -->\n<!-- end -->", read_records(records)), re.MULTILINE
    )
    assert "| one |" not in rewrite("<!-- numbers: home -->\n<!-- end -->", read_records(records))


def test_speeds_are_taken_together_or_not_at_all(records, tmp_path):
    (bench := tmp_path / "bench").mkdir()
    older(records)
    rows = json.loads((records / "speed.json").read_bytes())
    (bench / "speed.json").write_text(json.dumps(rows[1:]))
    assert "left out" in take(bench, records)[0]
    assert json.loads((records / "speed.json").read_bytes()) == rows
    (bench / "speed.json").write_text(json.dumps([row | {"median_ms": 7.0} for row in rows]))
    take(bench, records)
    assert {row["median_ms"] for row in json.loads((records / "speed.json").read_bytes())} == {7.0}


def test_older_records_stay_where_they_are(records, tmp_path):
    bench = shutil.copytree(records, tmp_path / "bench")
    change(bench / "onnx.json", images=1)
    older(bench)
    assert take(bench, records) == []


def test_the_command_names_a_folder_that_is_not_there(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["numbers", str(tmp_path / "nowhere")])
    assert run_command(main) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'nowhere'} is no folder of records; measure something, or pass --check\n"


def test_the_check_says_what_differs_and_writes_nothing(monkeypatch, records, tmp_path, capsys):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=lambda *_: ["__pycache__"])
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "model" / "weights", tmp_path / "model" / "weights")
    monkeypatch.setattr("docs.numbers.ROOT", tmp_path)
    monkeypatch.setattr("docs.numbers.RECORDS", records)
    monkeypatch.setattr("sys.argv", ["numbers", "--check"])
    assert run_command(main) == 0
    page = tmp_path / "docs" / "int8.md"
    page.write_text(text := page.read_text().replace("| 0.32 |", "| 0.33 |"))
    assert run_command(main) == 1
    assert capsys.readouterr().err == "error: docs/int8.md: other figures than in docs/records; run: make readme-numbers\n"
    assert page.read_text() == text
    monkeypatch.setattr("sys.argv", ["numbers", str(tmp_path)])
    assert run_command(main) == 0
    assert capsys.readouterr().out == "docs/int8.md: written\n"
    assert page.read_text() == (ROOT / "docs" / "int8.md").read_text()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<!-- numbers: hom -->\n<!-- end -->", "no table is called 'hom'"),
        ("<!-- numbers: home -->\n", "belongs to no pair"),
        ("text <!-- end -->", "belongs to no pair"),
    ],
)
def test_markers_that_lead_nowhere_are_named(text, why):
    with pytest.raises(UserError, match=why):
        rewrite(text, read_records(RECORDS))


def test_records_that_cannot_be_are_named(records):
    change(records / "onnx.json", machine="another", images=3)
    with pytest.raises(UserError, match="measured differently: 3 images"):
        rewrite("<!-- numbers: accuracy -->\n<!-- end -->", read_records(records))
    (records / "onnx.json").write_text('[{"artifact": "a"}]')
    with pytest.raises(UserError, match="not as it should be"):
        rewrite("<!-- numbers: accuracy -->\n<!-- end -->", read_records(records))
    (records / "onnx.json").write_text("[1]")
    with pytest.raises(UserError, match="make bench-onnx"):
        read_records(records)

"""The report: it holds together, needs no network, and its figures are those of the records."""

import csv
import io
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from model.files import write_json
from runtime_bench.charts import Bar, Line, bars, intervals, roofline
from runtime_bench.drift import drift_fields
from runtime_bench.html_report import write_report
from runtime_bench.record import Faces, Result, SubsetAP, read_results
from runtime_bench.samples import sample_set
from runtime_bench.widerface import average_precision, precision_recall
from tests.conftest import error_line
from tests.runtime_bench.test_changes import RESULT
from tests.runtime_bench.test_drift import crowd, evaluation, found


class Page(HTMLParser):
    """Fails where elements do not nest; gathers text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.text, self.links, self.counts = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def report(results, tmp_path, photographs=None) -> tuple[Page, str, list[dict]]:
    html, markdown, table = (path.read_text(encoding="utf-8") for path in write_report(results, photographs, tmp_path))
    assert "http" not in html
    assert "<script" not in html
    page = Page(html)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    return page, markdown, list(csv.DictReader(io.StringIO(table)))


def drifted(**after) -> Result:
    """The portrait, found by FP32 torch at its place, and by an artifact at ``after``."""
    before = evaluation(**{"astronaut.png": found((0.9, 178, 62, 271, 179))})
    fields = drift_fields(sample_set(1), before, evaluation(**{"astronaut.png": after["faces"]}), 0.5)
    return msgspec.structs.replace(RESULT, **{name: fields[name] for name in ("drift", "examples")}, artifact=after.get("name", "a"))


def test_a_report_of_a_run(cli, artifact, tmp_path):
    code, _, _ = cli("runtime_bench", "run", artifact, "--runs", 3, "--json", tmp_path / "r.json")
    assert code == 0
    code, said, _ = cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path / "out")
    assert code == 0
    assert said.split() == [str(tmp_path / "out" / name) for name in ("report.html", "report.md", "report.csv")]
    (result,) = read_results(tmp_path / "r.json")
    page, markdown, (row,) = report([result], tmp_path)
    text = " ".join(page.text)
    for heading in ("Summary", "Latency", "Roofline", "Precision and recall", "Drift of detections", "Not verified"):
        assert heading in text
    assert f"{result.latency_ms.median:.1f} ms" in text
    assert float(row["median_ms"]) == result.latency_ms.median
    assert float(row["drop_hard"]) == result.drop.hard
    assert f"{result.ap.hard:.2f}" in markdown
    assert "no phone has been measured" in text


def test_names_are_text_and_nothing_else(tmp_path):
    page, _, (row,) = report([msgspec.structs.replace(RESULT, artifact="<b>&\"'", machine="<i>", dataset="</section>")], tmp_path)
    assert "<b>&\"'" in " ".join(page.text)
    assert row["artifact"] == "<b>&\"'"


def test_a_record_without_anything_but_costs(tmp_path):
    bare = Result(**{field: getattr(RESULT, field) for field in Result.__struct_fields__[: Result.__struct_fields__.index("images")]})
    page, _, _ = report([bare], tmp_path)
    assert "Drift of detections" not in " ".join(page.text)


def test_photographs_are_shown_where_they_changed(tmp_path):
    moved = drifted(faces=found((0.9, 178, 72, 271, 189), (0.8, 10, 10, 60, 70)))
    page, _, _ = report([moved], tmp_path, sample_set().images)
    assert page.counts["image"] == 2
    html = (tmp_path / "report.html").read_text()
    # The face is on both sides, the false one on one.
    assert (html.count('class="both"'), html.count('class="one"')) == (2, 1)
    assert moved.examples[0].after == Faces(((178.0, 72.0, 271.0, 189.0), (10.0, 10.0, 60.0, 70.0)), (0.9, 0.8))

    still = drifted(faces=found((0.9, 178, 62, 271, 179)))
    page, _, _ = report([still], tmp_path, sample_set().images)
    assert "image" not in page.counts
    assert "No photograph changed visibly" in " ".join(page.text)
    page, _, _ = report([moved], tmp_path)
    assert "made without the photographs" in " ".join(page.text)
    page, _, _ = report([moved], tmp_path, tmp_path)
    assert "no such photograph" in " ".join(page.text)


def test_results_of_different_photographs_are_in_different_figures(tmp_path):
    truth, before, _ = crowd(0, 12)
    from runtime_bench.record import Curve

    lines = tuple(Curve(name, *(tuple(axis.tolist()) for axis in axes)) for name, axes in precision_recall(truth, before).items())
    one = msgspec.structs.replace(RESULT, curves=lines)
    other = msgspec.structs.replace(one, artifact="b")
    foreign = msgspec.structs.replace(one, artifact="c", dataset_digest="other", dataset="others")
    page, _, _ = report([one, other], tmp_path)
    assert page.counts["figure"] == 3
    assert "a, b" in " ".join(page.text)  # the same line
    page, _, _ = report([one, other, foreign], tmp_path)
    assert page.counts["figure"] == 6


def test_the_area_under_a_curve_is_the_average_precision():
    truth, before, after = crowd(0, 60)
    for side in (before, after):
        curves, ap = precision_recall(truth, side), average_precision(truth, side)
        for subset, (recall, precision) in curves.items():
            assert (np.diff(recall) >= 0).all()
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            area = 100 * np.sum(np.diff(np.concatenate([[0], recall])) * envelope)
            assert area == pytest.approx(ap[subset], abs=2.5)  # a tenth of the levels


def places(html: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"{name}:(?:calc\(100% - )?([\d.]+)%", html)]


def test_bars_are_as_long_as_their_values():
    html = bars([Bar("a", 10, 8, 20, "ten"), Bar("b", 5, 5, 5, "five")])
    assert places(html, "width") == [50, 25]
    assert places(html, "left") == [40, 25]
    assert places(html, "right") == [100, 25]


def test_intervals_are_around_zero_and_rounding_errors_do_not_show():
    html = intervals([Bar("a", 1, -0.5, 2, "")])
    assert places(html, "left") == [50 - 49 / 4, 50 + 49 / 2]
    assert places(html, "right") == [99]
    assert places(intervals([Bar("a", 1e-6, 0, 2e-6, "")]), "left") == [50, 50]


def test_a_dot_on_the_roof_is_drawn_on_it():
    html = roofline([Line("roof", [(1, 10), (10, 100), (100, 100)])], [Line("at the ridge", [(10, 100)])], "t", "x", "y")
    x, y = re.search(r'cx="([\d.]+)" cy="([\d.]+)"', html).groups()
    assert f"{x},{y}" in re.search(r'<polyline points="([^"]+)" class="roof"', html)[1]


def test_reports_of_nothing_are_refused(cli, tmp_path):
    write_json(tmp_path / "empty.json", [])
    code, _, error = cli("runtime_bench", "report", tmp_path / "empty.json")
    assert code == 2
    assert "no record in" in error_line(error)
    code, _, error = cli("runtime_bench", "report", tmp_path / "missing.json")
    assert code == 2
    assert "missing.json" in error_line(error)


def test_a_gain_has_a_sign_and_an_empty_subset_a_dash(tmp_path):
    _, markdown, _ = report([msgspec.structs.replace(RESULT, drop=SubsetAP(-0.25, 0.0, None))], tmp_path)
    row = next(line for line in markdown.splitlines() if line.startswith("| a "))
    assert [cell.strip() for cell in row.split("|")][9:12] == ["-0.25", "+0.00", "-"]

"""The report: one HTML file that needs no network, and the same figures as Markdown and CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Hashable, Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image
from tabulate import tabulate

from model.errors import UserError
from model.files import atomic_file, require_inside
from model.preprocess import load_image
from runtime_bench.charts import Bar, Line, bars, curves, intervals, legend, roofline
from runtime_bench.record import Drift, Example, Faces, PhoneRun, Result, SizeDrift
from runtime_bench.report import Table, conditions, evaluations, in_threads, named, phones, programs, rounded
from runtime_bench.widerface import SUBSETS

_PHOTOGRAPH_SIDE = 480
_DRIFTED = 3
"""Artifacts whose photographs are shown, those that changed most."""
_VISIBLE = 0.05
"""Photographs that changed less are not shown: nobody would see it. See :attr:`runtime_bench.record.ImageDrift.change`."""


def write_report(results: Sequence[Result], photographs: Path | None, folder: Path) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``report.csv``.

    Args:
        results: of any runs; what is not comparable is shown apart.
        photographs: folder that the names of photographs are relative to; without it none are shown.
        folder: for the files.

    Returns:
        The files.
    """
    texts = {
        "report.html": _page(results, photographs),
        "report.md": _markdown(results),
        "report.csv": _csv(results),
    }
    for name, text in texts.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    return [folder / name for name in texts]


def _markdown(results: Sequence[Result]) -> str:
    more = [
        line
        for table in (phones(results), programs(results), evaluations(results))
        if table
        for line in (_github(table), "", table.note, "")
    ]
    lines = [f"- {line}" for line in (*conditions(results), *_not_verified(results))]
    return "\n".join(["# Benchmark", "", _github(Table(*_summary(results), "")), "", *more, *lines]) + "\n"


def _github(table: Table) -> str:
    columns = ("left", *["right"] * (len(table.headers) - 1))
    return tabulate(table.rows, table.headers, tablefmt="github", colalign=columns, disable_numparse=True)


def _summary(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    headers = ["artifact", "MB", "median ms", "p90", "peak MB", *SUBSETS, *(f"drop {subset}" for subset in SUBSETS), "lost", "gained"]
    rows = []
    for result in results:
        times = result.latency_ms
        sizes = result.drift.sizes if result.drift else None
        rows.append(
            [
                named(result),
                f"{result.size_bytes / 1e6:.2f}",
                *(["-", "-"] if times is None else [f"{times.median:.1f}", f"{times.p90:.1f}"]),
                "-" if result.peak_memory_bytes is None else f"{result.peak_memory_bytes / 1e6:.0f}",
                *(_subset(result.ap, subset, "") for subset in SUBSETS),
                *(_subset(result.drop, subset, "+") for subset in SUBSETS),
                *(["-", "-"] if sizes is None else [str(sum(size.lost for size in sizes)), str(sum(size.gained for size in sizes))]),
            ]
        )
    return headers, rows


def _subset(ap: object, subset: str, sign: str) -> str:
    value = getattr(ap, subset) if ap else None
    return "-" if value is None else rounded(value, sign)


def _csv(results: Sequence[Result]) -> str:
    """A row for each record, every figure as it was measured."""

    def row(result: Result) -> dict[str, object]:
        times, drift, line = result.latency_ms, result.drift, result.roofline
        fields = ("artifact", "device", "variant", "dcn", "precision", "format", "runtime", "runtime_version", "machine", "threads")
        flat: dict[str, object] = {field: getattr(result, field) for field in fields}
        flat |= {"size_bytes": result.size_bytes, "load_ms": result.load_ms, "first_run_ms": result.first_run_ms}
        flat |= {f"{field}_ms": getattr(times, field, None) for field in ("median", "p10", "p90", "p99", "min")}
        flat |= {"images_per_s": result.images_per_s, "peak_memory_bytes": result.peak_memory_bytes}
        flat |= {"macs": line and line.macs, "bound_ms": line and line.bound_ms, "peak_gflops": line and line.peak.gflops}
        flat |= {"runs": getattr(times, "runs", None), "mlperf": getattr(times, "mlperf", None), "accelerator": result.accelerator}
        flat |= _phone_columns(result.phone)
        flat |= {f"benchmark_model_{field}": getattr(result.benchmark_model, field, None) for field in ("mean_ms", "std_ms", "runs")}
        flat |= {"dataset": result.dataset, "images": result.images, "protocol": result.protocol}
        flat |= {f"ap_{subset}": getattr(result.ap, subset, None) for subset in SUBSETS}
        flat |= {f"drop_{subset}": getattr(result.drop, subset, None) for subset in SUBSETS}
        for subset in SUBSETS:
            flat[f"drop_{subset}_low"], flat[f"drop_{subset}_high"] = getattr(result.drop_interval, subset, None) or (None, None)
        for field in ("box_iou", "score", "landmarks"):
            spread = getattr(drift, field, None)
            flat |= {f"{field}_mean": getattr(spread, "mean", None), f"{field}_p95": getattr(spread, "p95", None)}
        flat |= {field: drift and sum(getattr(size, field) for size in drift.sizes) for field in ("lost", "gained")}
        return flat

    rows = [row(result) for result in results]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _phone_columns(run: PhoneRun | None) -> dict[str, object]:
    flat: dict[str, object] = {field: run and getattr(run.before, field) for field in ("model", "soc", "system")}
    for field in ("thermal_status", "battery_percent", "battery_c"):
        flat |= {f"{field}_before": run and getattr(run.before, field), f"{field}_after": run and getattr(run.after, field)}
    return flat | {"energy_j": run and run.energy and run.energy.joules, "cool_down_s": run and run.cool_down_s}


def _page(results: Sequence[Result], photographs: Path | None) -> str:
    sections = (
        ("Summary", _summaries(results)),
        ("Latency", _latency(results)),
        ("Phones", _shown(phones(results))),
        ("By benchmark_model", _shown(programs(results))),
        ("Roofline", _roofline(results)),
        ("Precision and recall", _curves(results)),
        ("What was lost in AP", _drops(results)),
        ("Drift of detections", _drift(results)),
        ("Other devices against this machine", _devices(results)),
        ("Photographs that changed most", _examples(results, photographs)),
        ("How long judging took", _shown(evaluations(results))),
        ("How the figures were obtained", _list(conditions(results))),
        ("Not verified", _list(_not_verified(results))),
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections if content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Benchmark</title><style>{_STYLE}</style></head><body><h1>Benchmark</h1>{body}</body></html>\n"
    )


def _shown(table: Table | None) -> str:
    return "" if table is None else f"{_table(table.headers, table.rows)}<p>{escape(table.note)}</p>"


def _grouped[Key: Hashable](results: Iterable[Result], key: Callable[[Result], Key]) -> dict[Key, list[Result]]:
    groups: dict[Key, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def _summaries(results: Sequence[Result]) -> str:
    """One table for each set of photographs and scaling: AP is comparable within one only."""
    return "".join(
        f"<h3>{escape(dataset)}{escape(f', {scaling}' if scaling else '')}</h3>{_table(*_summary(group))}"
        for (dataset, scaling, _), group in _grouped(results, _photographs).items()
    )


def _photographs(result: Result) -> tuple[str, str, str]:
    """Title, scaling and digest: what results must share to be compared."""
    if not result.images:
        return "without photographs", "", ""
    return f"{result.dataset}, {result.images} photographs", f"scaling {result.protocol}", result.dataset_digest


def _latency(results: Sequence[Result]) -> str:
    timed = [result for result in results if result.latency_ms]
    parts = []
    alike = _grouped(timed, lambda result: (result.machine, result.latency_input, result.threads, result.latency_ms.mlperf))
    for (machine, size, threads, mlperf), group in alike.items():
        rules = ", MLPerf Mobile's single-stream timing: 90th percentile" if mlperf else ""
        parts.append(f"<h3>{size[0]}x{size[1]}, {in_threads(threads)}, {escape(machine)}{rules}</h3>")
        rows = []
        for result in sorted(group, key=lambda result: result.latency_ms.median):
            times = result.latency_ms
            low = times.min if times.p10 is None else times.p10
            shown = times.p90 if mlperf else times.median
            spread = f"(median {times.median:.1f})" if mlperf else f"({low:.1f} to {times.p90:.1f})"
            rows.append(Bar(named(result), shown, low, times.p90, f"{shown:.1f} ms {spread}"))
        parts.append(bars(rows))
    note = "<p>Median of the network alone, or what the heading says; the whisker holds eight runs of ten, over all processes.</p>"
    return note + "".join(parts) if parts else ""


def _roofline(results: Sequence[Result]) -> str:
    parts = []
    bound = [result for result in results if result.roofline and result.latency_ms]
    for (machine, threads, peak), group in _grouped(bound, lambda result: (result.machine, result.threads, result.roofline.peak)).items():
        dots = []
        for result in group:
            line = result.roofline
            achieved = 2 * line.macs / result.latency_ms.median / 1e6
            share = 100 * line.bound_ms / result.latency_ms.median
            dots.append(Line(f"{named(result)}: {achieved:.1f} GFLOP/s, {share:.0f} %", [(2 * line.macs / line.bytes, achieved)]))
        ridge = peak.gflops / peak.copy_gbs
        widest = max(ridge * 10, *(dot.points[0][0] * 2 for dot in dots))
        roof = Line("roof", [(ridge / 10, peak.gflops / 10), (ridge, peak.gflops), (widest, peak.gflops)])
        title = f"{machine}, {in_threads(threads)}: {peak.gflops:.0f} GFLOP/s, {peak.copy_gbs:.0f} GB/s"
        drawn = roofline([roof], dots, title, "operations for a byte of model, input and output", "GFLOP/s")
        parts.append(f'<div class="figures">{drawn}</div>{legend([dot.label for dot in dots])}')
    note = (
        "<p>The roof is what this machine reaches in a matrix product and in a copy, measured in the same run, in single precision. "
        "Work is counted on the network as trained; percentages are of the roof.</p>"
    )
    return note + "".join(parts) if parts else ""


def _curves(results: Sequence[Result]) -> str:
    parts = []
    scored = [result for result in results if result.curves]
    for (dataset, scaling, _), group in _grouped(scored, _photographs).items():
        # Those that nobody could tell apart share a line.
        same = _grouped(group, lambda result: tuple((curve.recall, curve.precision) for curve in result.curves))
        drawn = []
        for subset in SUBSETS:
            lines = []
            for alike in same.values():
                curve = next((curve for curve in alike[0].curves if curve.subset == subset), None)
                points = list(zip(curve.recall, curve.precision, strict=True)) if curve else []
                lines.append(Line(named(alike[0]), points))
            if any(line.points for line in lines):
                drawn.append(curves(lines, subset, "recall", "precision"))
        parts.append(f"<h3>{escape(dataset)}, {escape(scaling)}</h3>")
        parts.append(f'<div class="figures">{"".join(drawn)}</div>{legend([", ".join(map(named, alike)) for alike in same.values()])}')
    return "".join(parts)


def _drops(results: Sequence[Result]) -> str:
    parts = []
    for (dataset, scaling, _), group in _grouped([result for result in results if result.drop], _photographs).items():
        for subset in SUBSETS:
            rows = []
            for result in group:
                drop = getattr(result.drop, subset)
                if drop is None:
                    continue
                interval = getattr(result.drop_interval, subset) if result.drop_interval else None
                low, high = interval or (drop, drop)
                text = rounded(drop, "+") + (f" [{rounded(low, '+')}, {rounded(high, '+')}]" if interval else "")
                rows.append(Bar(named(result), drop, low, high, text))
            if rows:
                parts.append(f"<h3>{subset}: {escape(dataset)}, {escape(scaling)}</h3>{intervals(rows)}")
    note = (
        "<p>Percentage points against the FP32 torch model of the same checkpoint on the same photographs: right of the line is a loss. "
        "The whisker holds 95 of 100 drops over photographs drawn anew; where there is none, there were too few.</p>"
    )
    return note + "".join(parts) if parts else ""


def _drift(results: Sequence[Result]) -> str:
    drifted = [result for result in results if result.drift]
    if not drifted:
        return ""
    headers = ["artifact", "pairs", "box IoU", "IoU 95 %", "score", "score 95 %", "landmarks %", "landmarks 95 %", "unpaired"]
    figures = [[named(result), str(result.drift.pairs), *_spreads(result.drift), str(result.drift.unpaired)] for result in drifted]
    return (
        "<p>Detections above the artifact's score threshold against those of FP32 torch: mean, and what 95 % are no worse than. Landmarks "
        "in percent of the face's size.</p>"
        + _table(headers, figures)
        + "<h3>Faces lost and gained, by height in the photograph</h3>"
        + "<p>Of the ground truth: lost (-) and gained (+), of those that FP32 torch finds.</p>"
        + "".join(_sizes(same, limits) for limits, same in _grouped(drifted, _limits).items())
    )


def _limits(result: Result) -> tuple[str, ...]:
    """Of the sizes that faces are counted by: records of an earlier version may have others."""
    sizes = result.drift.sizes
    return tuple(f"{size.height_from} px up" if size.height_to is None else f"{size.height_from} to {size.height_to} px" for size in sizes)


def _sizes(results: Sequence[Result], limits: Sequence[str]) -> str:
    rows = [[named(result), *(_lost_and_gained(size) for size in result.drift.sizes)] for result in results]
    return _table(["artifact", *limits], rows)


def _lost_and_gained(size: SizeDrift) -> str:
    if not size.lost and not size.gained:
        return f"0 of {size.found_before}" if size.found_before else "-"
    return f"-{size.lost} +{size.gained} of {size.found_before}"


def _devices(results: Sequence[Result]) -> str:
    elsewhere = [result for result in results if result.device_drift]
    if not elsewhere:
        return ""
    spreads = ["box IoU", "IoU 95 %", "score", "score 95 %", "landmarks %", "landmarks 95 %"]
    headers = ["artifact", "scores", "boxes px", "landmarks px", *spreads]
    rows = []
    for result in elsewhere:
        drift = result.device_drift
        rows.append(
            [named(result), *(f"{value:.1e}" for value in (drift.scores, drift.boxes_px, drift.landmarks_px)), *_spreads(drift.drift)]
        )
    note = (
        "<p>The same file with the same photographs. The first three: largest difference over all anchors, in pixels of the network's "
        "input.</p>"
    )
    return note + _table(headers, rows)


def _spreads(drift: Drift) -> list[str]:
    cells = []
    for spread, digits in ((drift.box_iou, 4), (drift.score, 4), (drift.landmarks, 2)):
        cells += ["-", "-"] if spread is None else [f"{spread.mean:.{digits}f}", f"{spread.p95:.{digits}f}"]
    return cells


def _examples(results: Sequence[Result], photographs: Path | None) -> str:
    drifted = [result for result in results if result.examples and result.drift and result.drift.changed]
    if not drifted:
        return ""
    if photographs is None:
        return "<p>None are shown: the report was made without the photographs (--wider).</p>"
    drifted.sort(key=lambda result: -result.drift.changed[0].change)
    # The same file finds the same on every device, as a rule.
    different = [result for index, result in enumerate(drifted) if result.examples not in [other.examples for other in drifted[:index]]]
    parts = []
    for result in different[:_DRIFTED]:
        for example, image in zip(result.examples, result.drift.changed, strict=False):
            if image.change >= _VISIBLE:
                parts.append(_example(named(result), example, photographs))
    if not parts:
        return f"<p>No photograph changed visibly: the largest change is {drifted[0].drift.changed[0].change:.4f} detections.</p>"
    return "<p>Green: found on both sides; red: on one only.</p>" + "".join(parts)


def _example(name: str, example: Example, photographs: Path) -> str:
    try:
        image = load_image(photographs / require_inside(example.name, "a record"))
    except UserError as error:
        return f"<p>{escape(example.name)}: {escape(str(error))}</p>"
    height, width = image.shape[:2]
    small = Image.fromarray(image)
    small.thumbnail((_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=80)
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    sides = []
    for title, faces, other in (("FP32 torch", example.before, example.after), (name, example.after, example.before)):
        drawn = ""
        for (left, top, right, bottom), score in zip(faces.boxes, faces.scores, strict=True):
            place = f'x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
            drawn += f'<rect {place} class="{_kind((left, top, right, bottom), other)}"><title>{score}</title></rect>'
        picture = f'<image href="{source}" width="{width}" height="{height}"/>{drawn}'
        sides.append(
            f"<figure><figcaption>{escape(title)}: {len(faces.boxes)}</figcaption>"
            f'<svg class="photograph" viewBox="0 0 {width} {height}">{picture}</svg></figure>'
        )
    return f"<h3>{escape(example.name)}</h3><div class='figures wide'>{''.join(sides)}</div>"


def _kind(box: tuple[float, float, float, float], others: Faces) -> str:
    """``both``, or ``one`` where the other side shows nothing there."""
    for other in others.boxes:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        if width > 0 and height > 0:
            shared = width * height
            if shared >= 0.5 * sum((one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)) - 0.5 * shared:
                return "both"
    return "one"


def _not_verified(results: Sequence[Result]) -> list[str]:
    """What a reader might take for granted and nobody has checked."""
    lines = []
    if any(result.device.startswith("qemu:") for result in results):
        lines.append("qemu: the runtimes' ARM kernels have run under emulation; no ARM processor has, and nothing is known of times there")
    if any(result.runtime == "coreml-evaluator" for result in results):
        lines.append("coreml-evaluator: Core ML itself has not run these files; they were evaluated with torch")
    if any(result.roofline for result in results):
        lines.append("the roofline's bytes are the least that must be moved; what caches spill is not counted")
    if all(result.device.partition(":")[0] in ("local", "qemu") for result in results):
        lines.append("no phone has been measured; no GPU, NPU or Neural Engine has run any of these files")
    if any(result.images and result.images < 3226 for result in results):
        lines.append("AP is of a part of the WIDER FACE validation set, or of other photographs, and not comparable with published figures")
    if not any(result.phone and result.phone.energy for result in results):
        lines.append("energy: not measured")
    if any(result.format == "coreml" and result.latency_ms and not result.accelerator for result in results):
        lines.append("Core ML does not tell which processors ran a network: what it was allowed stands in the device's name")
    return lines


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    # The labels are for narrow screens, which have no room for columns.
    labels = [escape(header) for header in headers[1:]]
    cells = ("".join(f'<td data-label="{label}">{escape(cell)}</td>' for label, cell in zip(labels, row[1:], strict=True)) for row in rows)
    body = "".join(f"<tr><th>{escape(row[0])}</th>{own}</tr>" for row, own in zip(rows, cells, strict=True))
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--faint:#d9d9d9;--soft:#f3f3f3;--fill:#0072b2;--mark:#d55e00}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#161616;--faint:#444;--soft:#242424;--fill:#4aa3d8;--mark:#f0894a}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;margin:0 auto;padding:16px}
h1{font-size:1.5em;margin:0 0 .5em}h2{font-size:1.2em;margin:2em 0 .5em}h3{font-size:1em;margin:1.2em 0 .4em;overflow-wrap:anywhere}
p,ul{max-width:75ch}li{overflow-wrap:anywhere}
.table{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.87em}
th,td{padding:.3em .6em;border-bottom:1px solid var(--faint);text-align:right;white-space:nowrap}
thead th{font-weight:600}tbody th,thead th:first-child{text-align:left;font-weight:400;position:sticky;left:0;background:var(--paper)}
tbody th{white-space:normal;overflow-wrap:anywhere;min-width:9em}
.bars{display:grid;gap:.55em;max-width:760px}
.bar{display:grid;grid-template-columns:1fr auto;column-gap:1em;font-size:.87em}
.bar span{overflow-wrap:anywhere}.bar b{font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.track{grid-column:1/-1;position:relative;display:block;height:12px;background:var(--soft);margin-top:2px}
.fill{position:absolute;inset:0 auto 0 0;background:var(--fill)}
.whisker{position:absolute;top:5px;height:2px;background:var(--mark);min-width:2px}
.zero::before{content:"";position:absolute;left:50%;top:-2px;bottom:-2px;width:1px;background:var(--ink)}
.dot{position:absolute;top:2px;width:8px;height:8px;margin-left:-4px;border-radius:50%;background:var(--fill)}
.figures{display:flex;flex-wrap:wrap;gap:12px}.figures figure{margin:0;flex:0 1 340px;min-width:0}
.figures.wide figure{flex:1 1 320px;max-width:520px}
figcaption{font-size:.87em;font-weight:600;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
polyline{fill:none;stroke-width:1.8}.roof{stroke:var(--ink);stroke-width:1.5}.grid{stroke:var(--faint);stroke-width:.7;fill:none}
.photograph rect{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.photograph .both{stroke:#00e070}.photograph .one{stroke:#ff4d2e;stroke-width:3}
.legend{list-style:none;padding:0;font-size:.87em}.legend li{padding-left:26px;text-indent:-26px}
.legend i{display:inline-block;width:18px;border-top:3px solid;margin:0 8px 4px 0}
@media(max-width:640px){
.table thead{display:none}.table table,.table tbody{display:block}
.table tr{display:grid;grid-template-columns:repeat(3,1fr);gap:.1em .8em;padding:.5em 0;border-bottom:1px solid var(--faint)}
.table th{grid-column:1/-1;position:static;padding:0;border:0;font-weight:600}
.table td{padding:0;border:0;text-align:left;white-space:normal;overflow-wrap:anywhere}
.table td::before{content:attr(data-label);display:block;opacity:.65;font-size:.87em}
}
"""

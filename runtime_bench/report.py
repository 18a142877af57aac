"""Results as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from model.artifact import Parity
from runtime_bench.changes import Change
from runtime_bench.compare import Speed
from runtime_bench.exports import Export
from runtime_bench.latency import MLPERF
from runtime_bench.profile import Operator, Profile
from runtime_bench.record import Drift, Result, SubsetAP
from runtime_bench.runtimes import Outputs
from runtime_bench.sqnr import ArtifactNoise
from runtime_bench.widerface import SUBSETS


class Table(NamedTuple):
    """For any of the forms that results are shown in."""

    headers: list[str]
    rows: list[list[str]]
    note: str


def results_table(results: Sequence[Result]) -> str:
    """A plain-text table, and below it how to read it."""
    headers = ["artifact", "MB", "median ms", "p10", "p90", "p99", "min", "peak MB", "image ms", "images", *SUBSETS, "drop e / m / h"]
    rows = [
        [
            named(result),
            f"{result.size_bytes / 1e6:.2f}",
            *(_figure(result.latency_ms and getattr(result.latency_ms, field), 1, 1) for field in ("median", "p10", "p90", "p99", "min")),
            _figure(result.peak_memory_bytes, 1e-6, 0),
            f"{result.image_ms.preprocess + result.image_ms.postprocess:.1f}" if result.image_ms else "-",
            result.images or "-",
            *_percent(result.ap),
            " / ".join(_percent(result.drop, sign="+")),
        ]
        for result in results
    ]
    lines = [tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True)]
    lines += (
        _speed_table(results)
        + _lines(phones(results))
        + _lines(programs(results))
        + _lines(evaluations(results))
        + drift_tables(results)
        + _device_table(results)
    )
    lines += conditions(results)
    return "\n".join(lines)


def conditions(results: Sequence[Result]) -> list[str]:
    """How the figures were obtained; artifacts are named only where not all of them share a condition."""
    lines = []
    for describe in (_weights, _latency, _accuracy):
        said: dict[str, list[str]] = {}
        for result in results:
            said.setdefault(describe(result), []).append(named(result))
        lines += [text if len(said) == 1 else f"{text} [{', '.join(names)}]" for text, names in said.items()]
    return lines


def _speed_table(results: Sequence[Result]) -> list[str]:
    headers = ["speed", "load ms", "first run ms", "images / s", "GMACs", "bound ms", "reached %"]
    rows = [
        [
            named(result),
            _figure(result.load_ms, 1, 0),
            _figure(result.first_run_ms, 1, 1),
            _figure(result.images_per_s, 1, 1),
            f"{result.roofline.macs / 1e9:.3f}",
            f"{result.roofline.bound_ms:.1f}",
            f"{100 * result.roofline.bound_ms / result.latency_ms.median:.0f}",
        ]
        for result in results
        if result.roofline and result.latency_ms
    ]
    if not rows:
        return []
    peaks = dict.fromkeys((result.roofline.peak, result.threads) for result in results if result.roofline)
    return [
        "",
        tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True),
        *(
            f"bound: by {peak.gflops:.1f} GFLOP/s (FP32 matrix product) and {peak.copy_gbs:.1f} GB/s (copy), measured in the same run on "
            f"{in_threads(threads)}; reached: bound over median"
            for peak, threads in peaks
        ),
    ]


def phones(results: Sequence[Result]) -> Table | None:
    """What phones said of themselves before and after latency was measured on them; ``None`` without any."""
    headers = ["phone", "what it is", "ran on", "governor", "hottest C", "battery C", "battery %", "throttling", "mJ a run", "cooled s"]
    rows = []
    for result in results:
        run = result.phone
        if run is None:
            continue
        before, after = run.before, run.after
        energy = "-" if run.energy is None else f"{1e3 * run.energy.joules / run.energy.runs:.1f} ({run.energy.source})"
        rows.append(
            [
                named(result),
                ", ".join(name or "?" for name in (before.model, before.soc, before.system)),
                result.accelerator or "-",
                ", ".join(sorted(set(before.governors.values()) | set(after.governors.values()))) or "-",
                _before_and_after(*(max(phone.temperatures_c.values(), default=None) for phone in (before, after))),
                _before_and_after(before.battery_c, after.battery_c),
                _before_and_after(before.battery_percent, after.battery_percent),
                _before_and_after(before.thermal_status, after.thermal_status),
                "charging" if run.energy is None and (before.charging or after.charging) else energy,
                f"{run.cool_down_s:.0f}",
            ]
        )
    note = (
        "before > after latency was measured; -: the phone does not tell; hottest: of the sensors that it shows; throttling: Android's "
        "thermal status, 0 to 6; mJ a run: of the whole phone, loading and warming up included; cooled: left alone before"
    )
    return Table(headers, rows, note) if rows else None


def programs(results: Sequence[Result]) -> Table | None:
    """What ``benchmark_model`` says, beside our own median; ``None`` where it was not run."""
    headers = ["benchmark_model", "our median ms", "mean ms", "std", "min", "max", "runs", "init ms", "first run ms", "warm-up ms", "MB"]
    rows = [
        [
            named(result),
            _figure(result.latency_ms and result.latency_ms.median, 1, 1),
            *(f"{value:.1f}" for value in (said.mean_ms, said.std_ms, said.min_ms, said.max_ms)),
            str(said.runs),
            *(f"{value:.1f}" for value in (said.init_ms, said.first_run_ms, said.warmup_ms)),
            _figure(said.memory_bytes, 1e-6, 0),
        ]
        for result in results
        if (said := result.benchmark_model)
    ]
    note = (
        "LiteRT's own command-line program on the same file and device, by its own words: one process, random input; warm-up: mean, first "
        "run included; MB: approximately, what loading and running added to its memory"
    )
    return Table(headers, rows, note) if rows else None


def _before_and_after(before: float | None, after: float | None) -> str:
    return "-" if before is None and after is None else " > ".join("-" if value is None else f"{value:g}" for value in (before, after))


def evaluations(results: Sequence[Result]) -> Table | None:
    """Where the time of evaluations went; ``None`` without any."""
    headers = ["evaluation", "images", "s", "network s", "overhead %", "scoring s", "% of network"]
    rows = [
        [
            named(result),
            str(result.images),
            f"{times.total:.1f}",
            f"{times.network:.1f}",
            f"{100 * (1 - times.network / times.total):.1f}",
            f"{times.scoring:.2f}",
            f"{100 * times.scoring / times.network:.1f}",
        ]
        for result in results
        if (times := result.evaluation_s) and times.network
    ]
    note = "overhead: what is not the network's own time, of reading, pre- and postprocessing, scores, intervals and drift; scoring: for AP"
    return Table(headers, rows, note) if rows else None


def _lines(table: Table | None) -> list[str]:
    if table is None:
        return []
    columns = ("left", *["right"] * (len(table.headers) - 1))
    return ["", tabulate(table.rows, table.headers, colalign=columns, disable_numparse=True), table.note]


def drift_tables(results: Sequence[Result]) -> list[str]:
    """What changed against FP32 torch, in a table of its own; nothing where nothing was evaluated."""
    headers = ["against FP32 torch", *(f"drop {subset}" for subset in SUBSETS)]
    headers += ["box IoU", "95 %", "score", "95 %", "landmarks %", "95 %", "faces found", "lost", "gained"]
    rows = [[named(result), *_drops(result), *_drift(result.drift)] for result in results if result.drift]
    if not rows:
        return []
    return [
        "",
        tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True),
        "drop: percentage points, with a bootstrapped 95 % interval; box IoU, score, landmarks: of detections that both have above the "
        "artifact's score threshold, mean, and what 95 % are no worse than; landmarks in percent of the face's size; faces found: above it",
        "",
    ]


def _device_table(results: Sequence[Result]) -> list[str]:
    headers = ["against itself on this machine", "scores", "boxes px", "landmarks px", "box IoU", "score", "lost", "gained"]
    rows = [
        [
            named(result),
            *(f"{value:.1e}" for value in (result.device_drift.scores, result.device_drift.boxes_px, result.device_drift.landmarks_px)),
            _figure(result.device_drift.drift.box_iou and result.device_drift.drift.box_iou.mean, 1, 6),
            _figure(result.device_drift.drift.score and result.device_drift.drift.score.mean, 1, 6),
            str(sum(size.lost for size in result.device_drift.drift.sizes)),
            str(sum(size.gained for size in result.device_drift.drift.sizes)),
        ]
        for result in results
        if result.device_drift
    ]
    if not rows:
        return []
    return [
        tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True),
        "scores, boxes, landmarks: largest difference over all anchors, pixels of the network's input; box IoU, score: of detections, mean",
        "",
    ]


def named(result: Result) -> str:
    """Of the artifact, and of the device if it is another than this machine."""
    return result.artifact if result.device == "local" else f"{result.artifact} on {result.device}"


def _drops(result: Result) -> list[str]:
    intervals = [getattr(result.drop_interval, subset) if result.drop_interval else None for subset in SUBSETS]
    return [
        f"{drop} [{', '.join(rounded(bound, '+') for bound in interval)}]" if interval else drop
        for drop, interval in zip(_percent(result.drop, sign="+"), intervals, strict=True)
    ]


def _drift(drift: Drift) -> list[str]:
    spreads = [(drift.box_iou, 4), (drift.score, 4), (drift.landmarks, 2)]
    found = sum(size.found_before - size.lost + size.gained for size in drift.sizes)
    return [
        *(_figure(spread and getattr(spread, field), 1, digits) for spread, digits in spreads for field in ("mean", "p95")),
        f"{found} of {sum(size.faces for size in drift.sizes)}",
        str(sum(size.lost for size in drift.sizes)),
        str(sum(size.gained for size in drift.sizes)),
    ]


def changes_table(changes: Sequence[Change], earlier: Path) -> str:
    """What changed beyond noise, what passed its limit, and how much was compared."""
    shown = [change for change in changes if change.beyond_noise]
    rows = [
        [
            change.artifact,
            change.figure,
            f"{change.before:.2f} {change.unit}".strip(),
            f"{change.after:.2f} {change.unit}".strip(),
            f"{100 * (change.after / change.before - 1):+.1f} %" if change.unit else rounded(change.after - change.before, "+"),
            "beyond the limit" if change.beyond_limit else "",
        ]
        for change in shown
    ]
    lines = [f"against {earlier}: {len(shown)} of {sum(change.before is not None for change in changes)} figures changed beyond noise"]
    if rows:
        headers = ["artifact", "figure", "before", "now", "change", ""]
        lines.append(tabulate(rows, headers, colalign=("left", "left", "right", "right", "right", "left"), disable_numparse=True))
    lines += [f"{change.artifact}: {change.figure} not compared, {change.why}" for change in changes if change.before is None]
    return "\n".join(lines)


def speeds_table(speeds: Sequence[Speed]) -> str:
    """Of artifacts that were measured together: one size, one number of threads."""
    first = speeds[0]
    threads = in_threads(first.threads)
    headers = ["network", "route", "median ms", "p10", "p90", "vs naive", "vs RetinaFace", "peak MB", "scores", "boxes px", "landmarks px"]
    rows = [
        [
            speed.variant,
            speed.route,
            *(f"{value:.2f}" for value in (speed.median_ms, speed.p10_ms, speed.p90_ms)),
            "-" if speed.vs_naive is None else f"{speed.vs_naive:.2f}x faster",
            "-" if speed.vs_retinaface is None else f"{speed.vs_retinaface:.2f}x its time",
            f"{speed.peak_memory_bytes / 1e6:.0f}",
            *_parity(speed.parity),
        ]
        for speed in speeds
    ]
    return "\n".join(
        [
            f"{first.size[0]}x{first.size[1]}, {threads}, {first.runtime} {first.runtime_version}, {first.machine}; "
            f"{first.rounds} interleaved rounds of {first.runs} runs; the last three columns: largest difference from torch",
            tabulate(rows, headers, colalign=("left", "left", *["right"] * (len(headers) - 2)), disable_numparse=True),
        ]
    )


def exports_table(exports: Sequence[Export]) -> str:
    """A row for each; below it why rows have no figures, and how those of the others were measured."""
    headers = ["export", "MB", "median ms", "scores", "boxes px", "landmarks px", *SUBSETS, "drop e / m / h"]
    rows = []
    for export in exports:
        parity, result = export.parity, export.result
        if parity is None or result is None:
            rows.append([export.artifact, "failed", *["-"] * (len(headers) - 2)])
            continue
        rows.append(
            [
                export.artifact,
                f"{result.size_bytes / 1e6:.2f}",
                "-" if result.latency_ms is None else f"{result.latency_ms.median:.1f}",
                *_parity(parity),
                *_percent(result.ap),
                " / ".join(_percent(result.drop, sign="+")),
            ]
        )
    lines = [tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True)]
    lines += [f"{export.artifact}: {export.reason}" for export in exports if export.reason]
    results = [export.result for export in exports if export.result]
    lines += drift_tables(results)
    return "\n".join(lines + list(dict.fromkeys(describe(result) for describe in (_latency, _accuracy) for result in results)))


def _parity(parity: Parity) -> list[str]:
    """Of scores, boxes and, where the network gives any, landmarks."""
    return [f"{parity.scores:.1e}", f"{parity.boxes_px:.1e}", f"{parity.landmarks_px:.1e}" if parity.landmarks_px else "-"]


_LISTED = 30
"""Slowest operators that :func:`profile_tables` prints one by one."""


def profile_tables(profile: Profile) -> str:
    """How it was measured, then a table of the operators by kind and one of the slowest."""
    height, width = profile.input
    threads = in_threads(profile.threads)
    peak = profile.peak
    rest = profile.operators[_LISTED:]
    return "\n".join(
        [
            f"{profile.artifact}: {profile.runtime} {profile.runtime_version}, {height}x{width}, {threads}, {profile.machine}",
            f"peak, {threads}: {peak.gflops:.1f} GFLOP/s (FP32 matrix product), {peak.copy_gbs:.1f} GB/s (copy, read and written)",
            f"network {profile.network_ms:.2f} ms without a profiler; operators {profile.operators_ms:.2f} ms together "
            f"(medians of {profile.runs} runs after {profile.warmup} to warm up)",
            "",
            _operator_table(profile.kinds),
            "",
            _operator_table(profile.operators[:_LISTED]),
            *([f"and {len(rest)} more, {sum(operator.ms for operator in rest):.2f} ms together"] if rest else []),
        ]
    )


_LEVELS_DB = (60, 40, 30, 20, 10)
"""At which :func:`noise_table` says where a network falls below."""


def noise_table(noise: ArtifactNoise) -> str:
    """Where signal to noise falls below round figures, which operators lost most, and what is left at the end."""
    photographs = f"{noise.photographs} photograph{'s' * (noise.photographs > 1)}"
    lines = [f"{noise.artifact} against {noise.reference}, {photographs}, {len(noise.values)} values"]
    if noise.unpaired:
        lines[0] += f" ({noise.unpaired} more have no counterpart)"
    firsts = {level: next((value for value in noise.values if value.sqnr_db < level), None) for level in _LEVELS_DB}
    for first in dict.fromkeys(filter(None, firsts.values())):
        levels = " and ".join(str(level) for level, value in firsts.items() if value is first)
        lines.append(f"first below {levels} dB: {first.name} ({first.operator}), {first.sqnr_db:.1f} dB")
    shown = sorted(noise.values, key=lambda value: -value.lost_db)[:_WORST]
    headers = ["lost most", "operator", "shape", "dB", "lost dB"]
    rows = [
        [value.name, value.operator, "x".join(map(str, value.shape)), f"{value.sqnr_db:.1f}", f"{value.lost_db:.1f}"]
        for value in noise.values
        if value in shown and value.lost_db > 0
    ]
    if rows:
        lines += ["", tabulate(rows, headers, colalign=("left", "left", "right", "right", "right"), disable_numparse=True)]
    last = noise.values[-len(Outputs._fields) :]
    lines += ["", f"at the end: {', '.join(f'{value.name} {value.sqnr_db:.1f} dB' for value in last)}"]
    return "\n".join(lines)


_WORST = 15


def _operator_table(operators: Sequence[Operator]) -> str:
    headers = ["operator", "node", "ms", "share %", "MMACs", "GFLOP/s", "% of peak", "GB/s", "% of copy"]
    rows = [
        [
            operator.op,
            operator.name,
            f"{operator.ms:.3f}",
            f"{100 * operator.share:.1f}",
            _figure(operator.macs, 1e-6, 2),
            _figure(operator.gflops, 1, 1),
            _figure(operator.of_peak, 100, 0),
            _figure(operator.gbs, 1, 1),
            _figure(operator.of_copy, 100, 0),
        ]
        for operator in operators
    ]
    return tabulate(rows, headers, colalign=("left", "left", *["right"] * (len(headers) - 2)), disable_numparse=True)


def _figure(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{unit * value:.{digits}f}"


def _percent(ap: SubsetAP | None, sign: str = "") -> list[str]:
    values = [getattr(ap, subset) if ap else None for subset in SUBSETS]
    return ["-" if value is None else rounded(value, sign) for value in values]


def rounded(value: float, sign: str = "") -> str:
    """Two digits."""
    # A drop of -0.0001 is no gain to speak of: round first, and have no negative zero.
    return f"{round(value, 2) + 0.0:{sign}.2f}"


def _weights(result: Result) -> str:
    return f"weights: {result.weights}"


def _latency(result: Result) -> str:
    if result.latency_ms is None and result.device.startswith("qemu:"):
        return f"latency: none, {result.machine}: {result.runtime} {result.runtime_version}"
    if result.latency_ms is None:
        return f"latency: not measured here, where {result.runtime} ({result.runtime_version}) stands in; image ms: pre- and postprocessing"
    height, width = result.latency_input
    times = result.latency_ms
    where = {"": "accelerator not known, ", "cpu": ""}.get(result.accelerator, f"on the {result.accelerator.upper()}, ")
    if times.mlperf:
        how_often = (
            f"at least {MLPERF.runs:,} runs and {MLPERF.seconds} s after {times.warmup} to warm up, as in MLPerf Mobile's single-stream "
            "scenario: p90 is the figure to report (no MLPerf result: other model and data, no load generator, postprocessing not included)"
        )
    else:
        processes = f"{times.processes} processes, each" if times.processes > 1 else "one process,"
        how_often = f"{times.runs} runs in {processes} after {times.warmup} to warm up"
    return (
        f"latency: the network alone, {height}x{width}, {result.runtime} {result.runtime_version}, "
        f"{in_threads(result.threads)}, {where}{how_often}, {result.machine}; image ms: pre- and postprocessing"
    )


def in_threads(number: int) -> str:
    """In words; 0 where they are the runtime's own affair."""
    return f"{number} thread{'s' * (number > 1)}" if number else "threads of its own choice"


def _accuracy(result: Result) -> str:
    if result.ap is None and not result.dataset_digest:
        return "AP: not measured by the app"
    if result.ap is None:
        return "AP: not measured, the run was interrupted"
    if result.ap_reference is None:
        return f"AP: {result.dataset}, scaling {result.protocol}"
    return (
        f"AP: {result.dataset}, scaling {result.protocol}; drop against FP32 torch on the same images "
        f"({' / '.join(_percent(result.ap_reference))}), positive is a loss"
    )

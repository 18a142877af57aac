"""The figures of README.md and docs/: tables between comment markers, made from records.

``docs/records`` holds what has been measured, as the commands wrote it, without what no table shows (curves, detections, single
photographs). ``python -m docs.numbers`` takes newer records of ``build/bench`` over and writes every table again; ``--check`` writes
nothing, and fails where a text says something else than the records.

Records are read as plain JSON, not as the structures that wrote them: those of an earlier version stay readable, and nothing here needs
torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from model.cli import Parser, run_command
from model.errors import UserError
from model.files import atomic_file, sha256

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "records"

MADE_BY = {
    "onnx.json": "make bench-onnx",
    "coreml.json": "make bench-coreml",
    "arm.json": "make bench-arm",
    "exports.json": "make export-all",
    "int8.json": "make quantize",
    "speed.json": "make bench-speed",
    "networks.json": "make readme-numbers",
    "kernel.txt": "make bench-kernel",
    "kernel-arm.txt": "make bench-kernel",
}
"""The records: JSON lists, or text as it was printed; and the command that writes each into ``build/bench``."""

WHOLE = "WIDER FACE val (dev_list.txt)"
DATASETS = {"arm.json": "WIDER FACE val (dev_list.txt, first 12)"}
"""What is as good as all photographs, where that is not :data:`WHOLE`."""

SUBSETS = ("easy", "medium", "hard")

Row = Mapping[str, Any]
Records = Mapping[str, Any]
"""Rows, or text, by the names of :data:`MADE_BY`; empty where there are none."""


def read_records(folder: Path) -> Records:
    """What is in a folder; a :class:`UserError` that names a file which is not what it should be."""
    return {name: _read(folder / name) for name in MADE_BY}


def _read(path: Path) -> Any:  # noqa: ANN401
    printed = path.suffix == ".txt"
    if not path.is_file():
        return "" if printed else []
    try:
        return path.read_text(encoding="utf-8") if printed else msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}; write it again: {MADE_BY[path.name]}") from None


# --- from build/bench into docs/records ---


def take(bench: Path, folder: Path) -> list[str]:
    """Take over records of ``bench`` that are newer than those of ``folder``; a line about each that was or was not.

    Commands write one file over and over; what was called ``int8-coreml.json`` to keep it counts as ``int8.json``, the oldest first.
    A record replaces the one of the same artifact if all photographs have judged it, or the same ones as that, so that a quick trial on
    a few of them never becomes a published figure. Speeds are comparable within one run only: they are replaced together or not at all;
    so INT8 times of another machine than the published ones are left out, and the rest of their row is taken over.
    """
    said = []
    published = {name: (folder / name).stat().st_mtime for name in MADE_BY if (folder / name).is_file()}
    for fresh in sorted(bench.glob("*.*"), key=lambda path: path.stat().st_mtime):
        name = fresh.name if fresh.name in MADE_BY else fresh.name.partition("-")[0] + fresh.suffix
        kept = folder / name
        if name not in MADE_BY or fresh.stat().st_mtime <= published.get(name, 0):
            continue
        before = _read(kept)
        after, complaints = _merged(name, before, _read(fresh))
        said += [f"{fresh}: {line}" for line in complaints]
        if after != before:
            with atomic_file(kept) as temporary:
                text = after.encode() if isinstance(after, str) else msgspec.json.format(msgspec.json.encode(after), indent=1) + b"\n"
                temporary.write_bytes(text)
            said.append(f"{kept}: taken from {fresh}")
    return said


def _merged(name: str, before: Any, fresh: Any) -> tuple[Any, list[str]]:  # noqa: ANN401
    if name in ("networks.json", "kernel.txt", "kernel-arm.txt"):
        return fresh, []
    after = {_key(row): row for row in before}
    if name == "speed.json":
        if missing := after.keys() - {_key(row) for row in fresh}:
            return before, [f"{min(missing)[0]} and {len(missing) - 1} more of the published speeds are not in it; left out"]
        return fresh, []
    complaints = []
    for row in fresh:
        judged_by, wanted = _dataset(row), DATASETS.get(name, WHOLE)
        if judged_by and judged_by in (wanted, _dataset(after.get(_key(row), {}))):
            published = after.get(_key(row), {})
            after[_key(row)] = _lean(row)
            if name == "int8.json" and published.get("int8_ms") and row.get("machine") != published.get("machine"):
                after[_key(row)] |= {field: published.get(field) for field in ("fp32_ms", "int8_ms", "speedup", "machine")}
                complaints.append(
                    f"{row['artifact']} was timed on {row.get('machine')}, others on {published.get('machine')}; times left out "
                    f"(to take them, remove {name} of docs/records and measure every row again)"
                )
        else:
            complaints.append(f"{row['artifact']} was judged by {judged_by or 'nothing'}, not by {wanted}; left out")
    return list(after.values()), complaints


def _key(row: Row) -> tuple[str, ...]:
    """What there is one record of; speeds also tell naive exports, which have the same names, threads and sizes apart."""
    return tuple(str(row.get(field, "")) for field in ("artifact", "device", "protocol", "route", "size", "threads"))


def _dataset(row: Row) -> str:
    return (row.get("result") or row).get("dataset", "")


def _lean(row: Row) -> Row:
    """Without what no table shows."""
    if row.get("result"):
        return {**row, "result": _lean(row["result"])}
    lean = {field: value for field, value in row.items() if field not in ("curves", "examples", "drift")}
    if device := row.get("device_drift"):
        lean["device_drift"] = {**device, "drift": {**device["drift"], "changed": []}}
    return lean


# --- tables ---

HOME = (
    "retinaface-none-fp32-640-onnx",
    "acwface_dcn_lite-custom-fp32-640-onnx",
    "acwface_dcn-custom-fp32-640-onnx",
    "acwface_dcn-custom-fp32-640-tflite",
    "acwface_dcn-decomposed-fp32-640-tflite",
    "acwface_dcn-decomposed-fp16-640-tflite",
    "acwface_dcn-decomposed-fp16-640-coreml",
)
"""Rows of the README's table, as far as they were measured; INT8 ones come behind."""


def home(records: Records) -> str:
    """Size, latency, AP and drop, a row for each format and precision."""
    results = {row["artifact"]: row for row in records["onnx.json"]} | _exported(records)
    shown = [results[name] for name in HOME if name in results]
    speeds = {row["artifact"]: row for row in _in_turn(records) if not row["route"].startswith("naive-")}
    rows = [
        [
            row["artifact"],
            f"{row['size_bytes'] / 1e6:.2f}",
            f"{speeds[row['artifact']]['median_ms']:.1f}" if row["artifact"] in speeds else "-",
            *_accuracy(row["ap"], row["drop"]),
        ]
        for row in shown
    ]
    alike = (WHOLE, shown[0]["protocol"], True)
    kinds = {_in_precision("", name) for name in HOME}
    order = list(results)
    int8 = [
        (results[source], row)
        for row in records["int8.json"]
        if (source := _in_precision("fp32", row["artifact"])) in results
        and _in_precision("", row["artifact"]) in kinds
        and (row["dataset"], row["protocol"], row["passed"]) == alike
    ]
    rows += [
        [
            row["artifact"],
            f"{row['size_ratio'] * source['size_bytes'] / 1e6:.2f}",
            "-" if row["int8_ms"] is None else f"{row['int8_ms']:.1f}",
            *_accuracy(row["ap_int8"], row["drop"]),
        ]
        for source, row in sorted(int8, key=lambda pair: order.index(pair[0]["artifact"]))
    ]
    table = _table(["artifact", "MB", "ms", *SUBSETS, "drop e / m / h"], rows)
    return f"{table}\n\n`ms`: the network alone, {_conditions(list(speeds.values()))}; INT8 in runs of their own. AP: {_judged(shown)}."


def speed(records: Records, runtime: str) -> str:
    """Routes against naive exports and RetinaFace."""
    shown = [row for row in _in_turn(records) if row["runtime"] == runtime]
    rows = [
        [
            row["variant"],
            row["route"],
            f"{row['median_ms']:.1f}",
            "-" if row["vs_naive"] is None or row["route"].startswith("naive-") else f"{row['vs_naive']:.2f}x faster",
            "-" if row["vs_retinaface"] is None else f"{row['vs_retinaface']:.2f}x its time",
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            *_parity(row["parity"]),
        ]
        for row in shown
    ]
    headers = ["network", "route", "median ms", "vs naive", "vs RetinaFace", "peak MB", "scores", "boxes px", "landmarks px"]
    rounds = _same(shown, lambda row: f"{row['rounds']} interleaved rounds of {row['runs']} runs")
    return f"{_table(headers, rows)}\n\n{_conditions(shown)}, {rounds}."


def accuracy(records: Records) -> str:
    """AP by scaling."""
    shown = records["onnx.json"]
    rows = [
        [row["artifact"], "its own size" if row["protocol"] == "original" else row["protocol"], *_accuracy(row["ap"], row["drop"])]
        for row in shown
    ]
    judged = _same(shown, lambda row: f"{row['images']} images of {row['dataset']}")
    return f"{_table(['artifact', 'photographs at', *SUBSETS, 'drop e / m / h'], rows)}\n\n{judged}."


def exports(records: Records) -> str:
    """Parity, AP and drop of every export."""
    shown = [row for row in records["exports.json"] if row["result"] and row["parity"]]
    rows = [
        [
            row["artifact"],
            f"{row['result']['size_bytes'] / 1e6:.2f}",
            *_parity(row["parity"]),
            *_accuracy(row["result"]["ap"], row["result"]["drop"]),
        ]
        for row in shown
    ]
    headers = ["export", "MB", "scores", "boxes px", "landmarks px", *SUBSETS, "drop e / m / h"]
    return f"{_table(headers, rows)}\n\nAP: {_judged([row['result'] for row in shown])}."


def coreml(records: Records) -> str:
    """What half precision costs there."""
    results = _exported(records) | {row["artifact"]: row for row in records["coreml.json"]}
    shown = [row for name, row in results.items() if re.search(r"-(none|decomposed)-fp16-\d+-coreml$", name)]
    rows = [[row["artifact"], f"{row['size_bytes'] / 1e6:.2f}", *_accuracy(row["ap"], row["drop"])] for row in shown]
    runtime = _same(shown, lambda row: row["runtime"])
    return f"{_table(['artifact', 'MB', *SUBSETS, 'drop e / m / h'], rows)}\n\nAP: {_judged(shown)}, run by {runtime}."


def int8(records: Records, formats: Sequence[str]) -> str:
    """INT8 against FP32; times where they were measured."""
    rows = [
        [
            row["artifact"] if row["passed"] else f"{row['artifact']}, refused",
            str(row["images"]),
            *_accuracy(row["ap_int8"], row["drop"]),
            f"{row['size_ratio']:.2f}",
            *(["-"] * 3 if row["speedup"] is None else [f"{row['fp32_ms']:.1f}", f"{row['int8_ms']:.1f}", f"{row['speedup']:.2f}x"]),
        ]
        for row in records["int8.json"]
        if row["format"] in formats
    ]
    if not rows:
        return _none("int8.json")
    return _table(["artifact", "images", *SUBSETS, "drop e / m / h", "file", "FP32 ms", "INT8 ms", "faster"], rows)


def arm(records: Records) -> str:
    """Artifacts on emulated processors against themselves."""
    shown = [row for row in records["arm.json"] if row["device_drift"]]
    if not shown:
        return _none("arm.json")
    rows = []
    for row in shown:
        device = row["device_drift"]
        drift = device["drift"]
        rows.append(
            [
                row["artifact"],
                row["device"],
                *_parity(device),
                "-" if drift["box_iou"] is None else f"{drift['box_iou']['mean']:.6f}",
                *(str(sum(size[field] for size in drift["sizes"])) for field in ("lost", "gained")),
            ]
        )
    headers = ["against itself on this machine", "on", "scores", "boxes px", "landmarks px", "box IoU", "lost", "gained"]
    return f"{_table(headers, rows)}\n\n{_judged(shown)}."


def networks(records: Records) -> str:
    """Parameters and multiply-accumulates."""
    rows = [
        [
            row["variant"],
            f"{row['params']:,}",
            f"{row['macs'] / 1e9:.3f}G",
            f"{row['thop_params'] / 1e3:.3f}K",
            f"{row['thop_macs'] / 1e9:.3f}G",
        ]
        for row in records["networks.json"]
    ]
    size = _same(records["networks.json"], lambda row: f"{row['size']}x{row['size']}")
    return _table([f"network, {size}", "params", "macs", "thop params", "thop macs"], rows)


def printed(records: Records, name: str, table: int, side: int) -> str:
    """The rows for maps of ``side`` x ``side`` of a Markdown table, one of those that a command has printed."""
    tables = re.findall(r"(?:^\|.*\n)+", records[name], re.MULTILINE)
    if table >= len(tables):
        return _none(name)
    head, rule, *rows = tables[table].splitlines()
    return "\n".join([head, rule, *(row for row in rows if row.startswith(f"| {side}x{side},"))])


TABLES: Mapping[str, Callable[[Records], str]] = {
    "home": home,
    "speed onnx": lambda records: speed(records, "onnxruntime"),
    "speed tflite": lambda records: speed(records, "litert"),
    "accuracy": accuracy,
    "exports": exports,
    "coreml": coreml,
    "int8": lambda records: int8(records, ("onnx", "tflite")),
    "int8 coreml": lambda records: int8(records, ("coreml",)),
    "arm": arm,
    "networks": networks,
    "kernel layers": lambda records: printed(records, "kernel.txt", 0, 80),
    "kernel predictions": lambda records: printed(records, "kernel.txt", 1, 80),
    "kernel instructions": lambda records: printed(records, "kernel-arm.txt", 0, 80),
}
"""By the name in the marker ``<!-- numbers: NAME -->``."""


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"| {' | '.join(headers)} |", "|---" * len(headers) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def _accuracy(ap: Row | None, drop: Row | None) -> list[str]:
    """The cells of AP, and the one of what was lost."""
    aps, drops = ([side[subset] if side else None for subset in SUBSETS] for side in (ap, drop))
    return [*map(_points, aps), " / ".join(_points(value, "+") for value in drops)]


def _points(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:{sign}.2f}"  # no negative zero


def _in_precision(precision: str, artifact: str) -> str:
    """The name of the same artifact in another precision."""
    return re.sub(r"-[^-]+(-[^-]+-[^-]+)$", rf"-{precision}\1", artifact)


def _parity(differences: Row) -> list[str]:
    return [f"{differences[field]:.1e}" for field in ("scores", "boxes_px", "landmarks_px")]


def _exported(records: Records) -> dict[str, Row]:
    return {row["artifact"]: row["result"] for row in records["exports.json"] if row["result"]}


def _in_turn(records: Records) -> list[Row]:
    """Speeds of one thread, on the largest input that was measured."""
    single = [row for row in records["speed.json"] if row["threads"] == 1]
    return [row for row in single if row["size"] == max(row["size"] for row in single)]


def _conditions(speeds: Sequence[Row]) -> str:
    runtimes = " and ".join(dict.fromkeys(f"{row['runtime']} {row['runtime_version']}" for row in speeds))
    return f"{_same(speeds, lambda row: '{}x{}, one thread, {}'.format(*row['size'], row['machine']))}, {runtimes}"


def _judged(results: Sequence[Row]) -> str:
    return _same(results, lambda row: f"{row['images']} images of {row['dataset']}, scaling {row['protocol']}")


def _same(rows: Sequence[Row], say: Callable[[Row], str]) -> str:
    """What is true of all rows; a :class:`UserError` where they were not measured alike."""
    said = dict.fromkeys(map(say, rows))
    if len(said) != 1:
        raise UserError(f"rows of one table were measured differently: {'; '.join(said) or 'there are none'}; measure them again, alike")
    return next(iter(said))


def _none(name: str) -> str:
    return f"Not recorded yet: `{MADE_BY[name]}` prints it."


# --- texts ---

_BLOCK = re.compile(r"(<!-- numbers: ([a-z0-9 ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (?:numbers|end)\b.*")
_MEASURED = re.compile(r"\d ms\b|\d\.\d+x\b|\b\d\d\.\d\d\b")
"""What looks like a latency, a ratio of two, or AP."""


def pages(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def rewrite(text: str, records: Records) -> str:
    """A page with its tables made from the records.

    Raises:
        UserError: there is no table of a marker's name, a marker stands alone, or a record lacks what a table shows.
    """

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UserError(f"no table is called {match[2]!r}; there are {', '.join(TABLES)}")
        try:
            return f"{match[1]}{TABLES[match[2]](records)}\n{match[3]}"
        except (KeyError, TypeError) as error:
            raise UserError(f"a record for table {match[2]!r} is not as it should be ({error!r}); measure it again") from None

    if alone := _MARKER.search(_BLOCK.sub("", text)):
        raise UserError(f"{alone[0]} belongs to no pair of <!-- numbers: NAME --> and <!-- end -->")
    return _BLOCK.sub(replace, text)


def loose(text: str) -> list[str]:
    """Lines outside the tables that state a measured figure: nothing would notice when it is no longer true."""
    return [line.strip() for line in _BLOCK.sub("", text).splitlines() if _MEASURED.search(line)]


def outdated(records: Records, weights: Path) -> list[str]:
    """Artifacts that were measured with other weights than the project ships now; RetinaFace is measured with the public ones."""
    shipped = {path.stem: sha256(path) for path in weights.glob("*.safetensors") if path.stem != "retinaface"}
    measured = [("exports.json", row) for row in _exported(records).values()] + [("onnx.json", row) for row in records["onnx.json"]]
    return [
        f"{row['artifact']}: {name} was measured with other weights than {weights.name} has; measure it again: {MADE_BY[name]}"
        for name, row in measured
        if row["checkpoint"] != shipped.get(row["variant"], row["checkpoint"])
    ]


def main() -> int:
    parser = Parser(
        prog="python -m docs.numbers",
        description="Write the figures of README.md and docs/ from records.",
        epilog="example: make readme-numbers",
    )
    parser.add_argument(
        "bench", type=Path, nargs="?", default=Path("build/bench"), help="newer records, as the commands write them (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where text and records disagree")
    args = parser.parse_args()
    if not args.check and not args.bench.is_dir():
        raise UserError(f"{args.bench} is no folder of records; measure something, or pass --check")
    for line in [] if args.check else take(args.bench, RECORDS):
        print(line)
    records = read_records(RECORDS)
    wrong = outdated(records, ROOT / "model" / "weights")
    for path in pages(ROOT):
        name, before = path.relative_to(ROOT), path.read_text(encoding="utf-8")
        after = rewrite(before, records)
        if after != before and args.check:
            wrong.append(f"{name}: other figures than in docs/records; run: make readme-numbers")
        elif after != before:
            with atomic_file(path) as temporary:
                temporary.write_text(after, encoding="utf-8")
            print(f"{name}: written")
        wrong += [f"{name}: a figure that no record holds: {line}" for line in loose(after)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run_command(main))

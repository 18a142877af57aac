"""``python -m runtime_bench``: what an artifact finds, what it costs, and what it lost."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import itertools
import json
import math
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from model.artifact import Artifact, open_artifact
from model.checkpoint import load_checkpoint
from model.cli import Parser, add_size, parse_size, positive, run_command
from model.errors import UserError
from model.files import atomic_file, write_json
from model.postprocess import Thresholds
from model.preprocess import load_image, prepare
from runtime_bench.apps import import_records
from runtime_bench.benchmark import artifact_inputs, benchmark, benchmark_peer, latency_input, peer_inputs
from runtime_bench.benchmark_model import check_program, why_not
from runtime_bench.changes import check_checkpoints, find_changes
from runtime_bench.compare import Speed, comparable, compare
from runtime_bench.detect import FaceDetector, artifact_detector, open_detector, torch_detector
from runtime_bench.devices import list_devices, open_device
from runtime_bench.devices.adb import only_serial
from runtime_bench.devices.app import HARDWARE, LIMIT_S, DemoApp, HowOften, app_inputs, benchmark_in_app
from runtime_bench.devices.phone import PhoneWatch
from runtime_bench.draw import draw_detections
from runtime_bench.drift import References, ap_gain
from runtime_bench.evaluate import Evaluation, evaluate, protocol
from runtime_bench.exports import Export, measure_exports
from runtime_bench.html_report import write_report
from runtime_bench.latency import COOL_DOWN_S, MLPERF, MLPERF_COOL_DOWN_S, RUNS, WARMUP, Timing, require_readable
from runtime_bench.options import add_dataset, open_dataset
from runtime_bench.peers import open_peer
from runtime_bench.profile import RUNS as PROFILE_RUNS
from runtime_bench.profile import profile_artifact
from runtime_bench.record import Result, gather_results, read_results
from runtime_bench.remote import DeviceRuns, benchmark_on
from runtime_bench.report import changes_table, exports_table, noise_table, profile_tables, results_table, rounded, speeds_table
from runtime_bench.roofline import processor
from runtime_bench.samples import PORTRAIT, sample_set
from runtime_bench.sqnr import find_reference, measure_sqnr
from runtime_bench.views import ENLARGED, PROTOCOLS, SHORT_SIDES, ViewDetector

SQNR_PHOTOGRAPHS = 4


def main() -> int:
    parser = Parser(prog="python -m runtime_bench", description=__doc__.replace("``", ""))
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="size, latency, memory and WIDER FACE AP of artifacts",
        description="Measure artifacts on this machine: latency and memory in a process of their own, AP and its drop against FP32 torch.",
        epilog="example: python -m runtime_bench run build/artifacts/* --wider WIDER_FACE --limit 50",
    )
    run.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="artifact folder")
    add_dataset(run)
    run.add_argument("--threads", type=positive, default=1, metavar="T", help="of the latency measurement (default: %(default)s)")
    how_often = run.add_mutually_exclusive_group()
    how_often.add_argument("--runs", type=positive, default=RUNS, metavar="N", help="latency runs after warm-up (default: %(default)s)")
    how_often.add_argument(
        "--mlperf",
        action="store_true",
        help=f"as many as MLPerf Mobile's single-stream scenario asks for: at least {MLPERF.runs:,} and {MLPERF.seconds} s; p90 counts",
    )
    run.add_argument(
        "--cool-down",
        type=_limit,
        metavar="SECONDS",
        help=f"pause before latency is measured on a phone again (default: {COOL_DOWN_S}; {MLPERF_COOL_DOWN_S} with --mlperf)",
    )
    run.add_argument("--json", type=Path, default=Path("build/bench/onnx.json"), metavar="FILE", help="the records (default: %(default)s)")
    run.add_argument(
        "--peer", action="append", default=[], metavar="NAME=FILE", help="YuNet, SCRFD (.onnx) or a public RetinaFace (.pth), beside them"
    )
    run.add_argument(
        "--device", action="append", metavar="NAME", help="where to run: local, qemu:CPU, adb:SERIAL; several if repeated (default: local)"
    )
    run.add_argument(
        "--benchmark-model", type=Path, metavar="FILE", help="LiteRT's program of that name for Android, to be run beside, on adb:SERIAL"
    )
    run.add_argument("--resume", action="store_true", help="keep what the records hold already of the same measurement: go on after Ctrl-C")
    run.add_argument("--compare", type=Path, metavar="FILE", help="earlier records; exit code 1 where the following limits are passed")
    run.add_argument(
        "--max-slower", type=_limit, default=10.0, metavar="PERCENT", help="of the median, beyond noise (default: %(default)s)"
    )
    run.add_argument("--max-loss", type=_limit, default=0.5, metavar="POINTS", help="of AP, beyond noise (default: %(default)s)")

    report = commands.add_parser(
        "report",
        help="records as one HTML page, Markdown and CSV",
        description="Show records of any runs together; figures of other photographs or scalings stand apart.",
        epilog="example: python -m runtime_bench report build/bench/onnx.json build/bench/tflite.json --wider WIDER_FACE",
    )
    report.add_argument("records", type=Path, nargs="+", metavar="JSON", help="records that `run` has written")
    report.add_argument("--wider", type=Path, metavar="ROOT", help="to show photographs that changed (default: sample photographs)")
    report.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="where to write (default: %(default)s)")

    import_ = commands.add_parser(
        "import",
        help="records that the demo apps have written on phones",
        description="Check records of the iOS or Android demo's benchmark and add them to those that are there, for the report.",
        epilog="example: python -m runtime_bench import iphone.json --json build/bench/ios.json",
    )
    import_.add_argument("records", type=Path, nargs="+", metavar="JSON", help="what the app has shared, or a folder of it")
    import_.add_argument(
        "--artifacts", type=Path, default=Path("build/artifacts"), metavar="DIR", help="what they should be of (default: %(default)s)"
    )
    import_.add_argument(
        "--json", type=Path, default=Path("build/bench/ios.json"), metavar="FILE", help="all records (default: %(default)s)"
    )

    app = commands.add_parser(
        "app",
        help="latency on a phone's CPU, GPU and NPU, by the Android demo",
        description="Put TFLite artifacts on a phone that has the Android demo, start its benchmark over adb, fetch its records.",
        epilog="example: python -m runtime_bench app build/artifacts/*-320-tflite --hardware cpu gpu --threads 4",
    )
    app.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="artifact folder, TFLite")
    app.add_argument("--device", default="adb", metavar="NAME", help="adb:SERIAL, or the only one: adb (default: %(default)s)")
    app.add_argument(
        "--hardware",
        nargs="+",
        choices=HARDWARE,
        default=["cpu", "gpu"],
        help="cpu, gpu, npu: one measurement on each, and none where it refuses the artifact (default: cpu gpu)",
    )
    app.add_argument("--threads", type=positive, default=1, metavar="T", help="of the CPU (default: %(default)s)")
    app.add_argument("--runs", type=positive, default=RUNS, metavar="N", help="after warm-up, in one process (default: %(default)s)")
    app.add_argument("--warmup", type=positive, default=WARMUP, metavar="N", help="runs before that (default: %(default)s)")
    app.add_argument(
        "--cool-down", type=_limit, default=COOL_DOWN_S, metavar="SECONDS", help="pause before all but the first (default: %(default)s)"
    )
    app.add_argument("--time-limit", type=_limit, default=LIMIT_S, metavar="SECONDS", help="for one measurement (default: %(default)s)")
    app.add_argument(
        "--json", type=Path, default=Path("build/bench/android-app.json"), metavar="FILE", help="the records (default: %(default)s)"
    )
    app.add_argument("--resume", action="store_true", help="keep what the records hold already of the same measurement")

    commands.add_parser(
        "devices",
        help="where artifacts can be run",
        description="What --device can name here, and what it is.",
        epilog="example: python -m runtime_bench devices",
    )

    judge = commands.add_parser(
        "evaluate",
        help="WIDER FACE AP of a checkpoint, run by torch in FP32, or of an artifact",
        description="AP by the official tools, of photographs looked at in one way or several.",
        epilog="example: python -m runtime_bench evaluate mine.safetensors --wider WIDER_FACE --protocol multi-scale",
    )
    judge.add_argument("model", type=Path, metavar="CHECKPOINT_OR_ARTIFACT", help=".safetensors or .pth file, artifact folder")
    add_dataset(judge)
    how = judge.add_mutually_exclusive_group()
    add_size(how, help="letterbox to this size, checkpoints only, pixels (default: every photograph at its own size)")
    how.add_argument(
        "--protocol",
        action="append",
        choices=list(PROTOCOLS),
        help=f"look once, at its own size or enlarged to a short side of {ENLARGED[0]}; or several times and vote: also in the mirror; "
        f"with the short sides {', '.join(map(str, SHORT_SIDES))}; both. Repeated, it prints gains over the first, with 95 %% intervals",
    )
    judge.add_argument("--json", action="store_true", help="a JSON object a line instead")

    detect = commands.add_parser(
        "detect",
        help="faces of photographs, drawn",
        description="Find faces with an artifact, or with a checkpoint run by torch.",
        epilog="example: python -m runtime_bench detect build/artifacts/retinaface-none-fp32-640-onnx holiday.jpg --out faces",
    )
    detect.add_argument("model", type=Path, metavar="ARTIFACT_OR_CHECKPOINT", help="artifact folder, .safetensors or .pth file")
    detect.add_argument("photos", type=Path, nargs="*", default=[PORTRAIT], metavar="PHOTO", help="default: a portrait that is at hand")
    detect.add_argument("--out", type=Path, default=Path("build/detect"), metavar="DIR", help="for drawings (default: %(default)s)")
    detect.add_argument("--score", type=float, default=Thresholds().score, help="lowest score to keep, 0 to 1 (default: %(default)s)")
    add_size(detect, help="letterbox to this size, checkpoints only, pixels (default: the photograph's own size)")
    detect.add_argument("--json", action="store_true", help="faces as JSON on stdout (pixels of the photograph)")

    profile = commands.add_parser(
        "profile",
        help="times of single operators, against the machine's peak",
        description="Where an artifact's time goes: operators by kind and one by one, slowest first, with the rate that each reaches.",
        epilog="example: python -m runtime_bench profile build/artifacts/retinaface-none-fp32-640-onnx --json build/bench/profile.json",
    )
    profile.add_argument("artifact", type=Path, metavar="ARTIFACT", help="artifact folder")
    profile.add_argument("--threads", type=positive, default=1, metavar="N", help="of the runtime (default: %(default)s)")
    profile.add_argument("--runs", type=positive, default=PROFILE_RUNS, metavar="N", help="measured, after warm-up (default: %(default)s)")
    profile.add_argument("--json", type=Path, metavar="FILE", help="write the records, all operators of them, here")

    sqnr = commands.add_parser(
        "sqnr",
        help="where an INT8 or FP16 artifact begins to differ from FP32, value by value",
        description="Signal to noise of everything that an artifact computes, against the FP32 artifact of the same network and route.",
        epilog="example: python -m runtime_bench sqnr build/artifacts/retinaface-none-int8-640-onnx --wider WIDER_FACE",
    )
    sqnr.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="artifact folder")
    sqnr.add_argument("--reference", type=Path, metavar="ARTIFACT", help="what to compare with (default: the FP32 one beside it)")
    add_dataset(sqnr, limit=SQNR_PHOTOGRAPHS)
    sqnr.add_argument(
        "--json", type=Path, default=Path("build/bench/sqnr.json"), metavar="FILE", help="records of all values (default: %(default)s)"
    )

    compare_ = commands.add_parser(
        "compare",
        help="latency of artifacts against each other, in interleaved rounds",
        description="Time artifacts of one runtime and input size in turn, and print ratios: to naive exports and to RetinaFace.",
        epilog="example: python -m runtime_bench compare build/artifacts/*-640-onnx --threads 1 4",
    )
    compare_.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="artifact folder, of a fixed input size")
    compare_.add_argument("--naive", type=Path, nargs="+", default=[], metavar="ARTIFACT", help="exports without rewrites to compare with")
    compare_.add_argument(
        "--threads",
        type=positive,
        nargs="+",
        default=sorted({1, os.cpu_count() or 1}),
        metavar="N",
        help="of the runtimes (default: 1 and all cores)",
    )
    compare_.add_argument(
        "--json", type=Path, default=Path("build/bench/speed.json"), metavar="FILE", help="records (default: %(default)s)"
    )

    exports = commands.add_parser(
        "exports",
        help="all exports of a checkpoint in one table, failed ones too",
        description="Measure as `run` does, and add parity; an artifact that is missing or cannot be run is a row with its reason.",
        epilog="example: python -m runtime_bench exports build/artifacts/*-640-* --wider WIDER_FACE",
    )
    exports.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="artifact folder, whether it exists or not")
    exports.add_argument("--failures", type=Path, metavar="DIR", help="holds NAME.txt, the error, for each artifact that could not be made")
    add_dataset(exports)
    exports.add_argument("--threads", type=positive, default=1, metavar="T", help="of the latency measurement (default: %(default)s)")
    exports.add_argument("--runs", type=positive, default=RUNS, metavar="N", help="latency runs after warm-up (default: %(default)s)")
    exports.add_argument(
        "--json", type=Path, default=Path("build/bench/exports.json"), metavar="FILE", help="the records (default: %(default)s)"
    )

    args = parser.parse_args()
    return {
        "app": _app,
        "compare": _compare,
        "devices": _devices,
        "exports": _exports,
        "import": _import,
        "run": _run,
        "evaluate": _evaluate,
        "detect": _detect,
        "profile": _profile,
        "report": _report,
        "sqnr": _sqnr,
    }[args.command](args)


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def _compare(args: argparse.Namespace) -> int:
    naive = comparable([open_artifact(path) for path in args.naive])
    speeds: list[Speed] = []
    for (runtime, size), artifacts in comparable([open_artifact(path) for path in args.artifacts]).items():
        for threads in args.threads:
            print(f"{runtime}, {size[0]}x{size[1]}, {threads} thread(s) ...", file=sys.stderr, flush=True)
            measured = compare(artifacts, naive.get((runtime, size), []), latency_input(artifacts[0].manifest), threads, processor())
            speeds += measured
            write_json(args.json, speeds)
            print(speeds_table(measured), end="\n\n", flush=True)
    print(f"{args.json}: the records")
    return 0


def _run(args: argparse.Namespace) -> int:
    if args.peer and "local" not in (args.device or ["local"]):
        raise UserError("--peer is measured on this machine; add --device local")
    if args.benchmark_model:
        if not any(name.partition(":")[0] == "adb" for name in args.device or []):
            raise UserError("--benchmark-model is run on phones; add --device adb:SERIAL")
        check_program(args.benchmark_model)
    before = read_results(args.compare) if args.compare else []
    references = References(open_dataset(args))
    peers = [open_peer(text) for text in args.peer]
    artifacts, failed = _open_artifacts(args.artifacts)
    check_checkpoints(before, artifacts)
    for artifact in artifacts if args.benchmark_model else ():
        if reason := why_not(artifact):
            print(f"{artifact.name}: benchmark_model is not run, {reason}", file=sys.stderr)
    devices = [open_device(name) for name in dict.fromkeys(args.device or ["local"])]
    elsewhere = [device for device in devices if device.name != "local"]
    timing = MLPERF if args.mlperf else Timing(args.runs)
    how = (references, args.threads, timing)
    plan: dict[tuple[str, str], _Planned] = {}
    if len(elsewhere) < len(devices):
        for artifact in artifacts:
            plan[artifact.name, "local"] = _Planned(artifact_inputs(artifact, *how), partial(benchmark, artifact, *how))
        for peer in peers:  # in every scaling that the artifacts have
            for size in dict.fromkeys(artifact.manifest.input.size for artifact in artifacts):
                plan[peer.title(size), "local"] = _Planned(peer_inputs(peer, size, *how), partial(benchmark_peer, peer, size, *how))
    cool_down_s = args.cool_down if args.cool_down is not None else MLPERF_COOL_DOWN_S if args.mlperf else COOL_DOWN_S
    cache = args.json.parent / "outputs"
    runs = DeviceRuns(artifacts, elsewhere, references, cache, args.resume, args.threads, timing, cool_down_s, args.benchmark_model)
    for artifact, device in itertools.product(artifacts, elsewhere):
        inputs = artifact_inputs(artifact, *how, device.describe())
        plan[artifact.name, device.name] = _Planned(inputs, partial(benchmark_on, device, artifact, runs, references))
    results, all_measured = _carry_out(plan, args.json, args.resume, runs.close)
    if args.compare:
        changes = find_changes(before, results, args.max_slower, args.max_loss)
        print(changes_table(changes, args.compare))
        if any(change.beyond_limit for change in changes) and all_measured and not failed:
            return 1
    return 0 if all_measured and not failed else 2


def _open_artifacts(paths: Sequence[Path]) -> tuple[list[Artifact], bool]:
    """Those that are in order, and whether there were others: each is an error line."""
    if twice := [name for name, count in Counter(path.resolve().name for path in paths).items() if count > 1]:
        raise UserError(f"two artifacts are called {twice[0]}; measure them into records of their own (--json)")
    artifacts, failed = [], False
    for path in paths:
        try:
            artifacts.append(open_artifact(path))
        except UserError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    return artifacts, failed


def _app(args: argparse.Namespace) -> int:
    kind, _, serial = args.device.partition(":")
    if kind != "adb":
        raise UserError(f"--device {args.device}: phones with the demo are adb:SERIAL, see: python -m runtime_bench devices")
    artifacts, failed = _open_artifacts(args.artifacts)
    if other := [artifact for artifact in artifacts if artifact.manifest.format != "tflite"]:
        raise UserError(f"{other[0].path} is {other[0].manifest.format}; the app runs tflite: make export-tflite")
    app, watch = DemoApp(serial or only_serial(), args.time_limit), PhoneWatch(args.cool_down)
    how = HowOften(args.threads, args.runs, args.warmup)
    plan: dict[tuple[str, str], _Planned] = {}
    for artifact, hardware in itertools.product(artifacts, dict.fromkeys(args.hardware)):
        measure = partial(benchmark_in_app, app, watch, artifact, hardware, how)
        plan[artifact.name, app.on(hardware)] = _Planned(app_inputs(app, artifact, hardware, how), measure)
    _, all_measured = _carry_out(plan, args.json, args.resume, app.stop)
    return 0 if all_measured and not failed else 2


class _Planned(NamedTuple):
    inputs: str
    """What :attr:`runtime_bench.record.Result.inputs` will be."""
    measure: Callable[[Result | None], Iterator[Result]]
    """Given an earlier result of the same inputs, or none."""


def _carry_out(plan: dict[tuple[str, str], _Planned], path: Path, resume: bool, close: Callable[[], None]) -> tuple[list[Result], bool]:
    """Measure, write the records after every step, close and print them, also after Ctrl-C; the results, and whether nothing has failed."""
    recorded = {(result.artifact, result.device): result for result in read_results(path)} if resume and path.exists() else {}
    results = {key: recorded[key] for key, planned in plan.items() if key in recorded and recorded[key].inputs == planned.inputs}
    interrupted, failed = True, False
    try:
        for key, planned in plan.items():
            try:
                for result in planned.measure(results.get(key)):
                    results[key] = result
                    write_json(path, [results[other] for other in plan if other in results])
                failed |= bool(results[key].failed_images)
            except UserError as error:
                failed = True
                print(f"error: {error}" if key[1] == "local" else f"error: {key[1]}: {error}", file=sys.stderr)
        interrupted = False
    finally:
        close()
        in_order = [results[key] for key in plan if key in results]
        if in_order:
            print(results_table(in_order))
            print(f"records: {path}{' (incomplete; --resume goes on from there)' if interrupted else ''}")
    return in_order, not failed


def _report(args: argparse.Namespace) -> int:
    results = gather_results(result for path in args.records for result in read_results(path))
    if not results:
        raise UserError(f"no record in {', '.join(map(str, args.records))}; run the benchmark first")
    photographs = args.wider / "val" / "images" if args.wider else sample_set().images
    for path in write_report(results, photographs, args.out):
        print(path)
    return 0


def _devices(_: argparse.Namespace) -> int:
    for name, description in list_devices():
        print(f"{name:<20} {description}")
    return 0


def _import(args: argparse.Namespace) -> int:
    imported = import_records(args.records, args.artifacts)
    results = gather_results([*(read_results(args.json) if args.json.exists() else []), *imported])
    write_json(args.json, results)
    print(results_table(results))
    print(f"records: {args.json}")
    return 0


def _exports(args: argparse.Namespace) -> int:
    references = References(open_dataset(args))
    exports: list[Export] = []
    for export in measure_exports(args.artifacts, args.failures, references, args.threads, args.runs):
        exports.append(export)
        write_json(args.json, exports)
    print(exports_table(exports))
    print(f"records: {args.json}")
    return 2 if any(export.reason for export in exports) else 0


def _evaluate(args: argparse.Namespace) -> int:
    size = parse_size(args.size) if args.size else None
    detector, said = _open_judged(args.model, size)
    if args.protocol and detector.size:
        raise UserError(f"{args.model} takes one size only, {protocol(detector.size)}; --protocol needs a checkpoint or one that takes any")
    dataset = open_dataset(args)
    evaluations: dict[str, Evaluation] = {}
    for name in dict.fromkeys(args.protocol or [protocol(detector.size)]):
        looking = ViewDetector(detector, PROTOCOLS[name]) if args.protocol else detector
        found = evaluations[name] = evaluate(looking, dataset, f"{args.model.name}, {name}")
        first = next(iter(evaluations.values()))
        gains = ap_gain(dataset, first, found) if found is not first else None
        if args.json:
            judged = said | {"dataset": dataset.title, "protocol": name, "images": len(found.detections)}
            print(json.dumps(judged | {"ap": msgspec.structs.asdict(found.ap)} | ({"gain": gains} if gains else {})), flush=True)
            continue
        figures = "  ".join(f"{subset} {_figure(value)}" for subset, value in msgspec.structs.asdict(found.ap).items())
        how = f"{len(found.detections)} images of {dataset.title}, scaling {name}, {said['runtime']}"
        print(f"{args.model}: {figures}  ({how})", flush=True)
        if gains:
            print(f"  gain over {args.protocol[0]}: {'  '.join(_gain(subset, *gain) for subset, gain in gains.items())}", flush=True)
    return 2 if any(evaluation.failed for evaluation in evaluations.values()) else 0


def _open_judged(path: Path, size: tuple[int, int] | None) -> tuple[FaceDetector, dict[str, str]]:
    """A checkpoint or an artifact, on as many threads as torch takes, and what to call it."""
    if not path.is_dir():
        checkpoint = load_checkpoint(path)
        variant = checkpoint.detector.config.variant
        said = {"checkpoint": str(path), "variant": variant, "weights": checkpoint.source, "runtime": "FP32 torch"}
        return torch_detector(checkpoint, size), said
    if size:
        raise UserError("--size goes with a checkpoint; an artifact has its own input size")
    artifact = open_artifact(path)
    require_readable(artifact)
    detector = artifact_detector(artifact, torch.get_num_threads())
    runtime = f"{detector.runtime.name} {detector.runtime.version}"
    return detector, {"artifact": str(path), "variant": artifact.manifest.variant, "weights": artifact.manifest.weights, "runtime": runtime}


def _gain(subset: str, value: float | None, bounds: tuple[float, float] | None) -> str:
    interval = f" [{', '.join(rounded(bound, '+') for bound in bounds)}]" if bounds else ""
    return f"{subset} {_figure(value, '+')}{interval}"


def _figure(value: float | None, sign: str = "") -> str:
    return "-" if value is None else rounded(value, sign)


def _detect(args: argparse.Namespace) -> int:
    if not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score}: a number from 0 to 1 is needed")
    if args.size and args.model.is_dir():
        raise UserError("--size goes with a checkpoint; an artifact has its own input size")
    detector = open_detector(args.model, threads=os.cpu_count() or 1, size=parse_size(args.size) if args.size else None)
    thresholds = Thresholds(score=args.score)
    failed, before = False, "["
    for path, out in zip(args.photos, _drawing_names(args.photos, args.out), strict=True):
        try:
            image = load_image(path)
            detections, _ = detector.detect(image, thresholds)
        except UserError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
            continue
        with atomic_file(out) as temporary:
            # Full-resolution colour, or thin coloured lines fade.
            draw_detections(image, detections).save(temporary, quality=92, subsampling=0)
        if not args.json:
            print(f"{path}: {len(detections)} face{'s' * (len(detections) != 1)}, drawn in {out}")
            continue
        faces = [
            {"box": box.tolist(), "score": float(score), "landmarks": landmarks.tolist()}
            for box, score, landmarks in zip(detections.boxes, detections.scores, detections.landmarks, strict=True)
        ]
        said = {"photo": str(path), "width": image.shape[1], "height": image.shape[0], "drawing": str(out), "faces": faces}
        # One list in all, which does not wait in memory for the last photograph.
        print(f"{before}\n{textwrap.indent(json.dumps(said, indent=2), '  ')}", end="")
        before = ","
    if args.json:
        print("[]" if before == "[" else "\n]")
    return 2 if failed else 0


def _profile(args: argparse.Namespace) -> int:
    profile = profile_artifact(open_artifact(args.artifact), args.threads, args.runs)
    print(profile_tables(profile))
    if args.json:
        write_json(args.json, profile)
        print(f"records: {args.json}")
    return 0


def _sqnr(args: argparse.Namespace) -> int:
    dataset = open_dataset(args)
    images = [load_image(dataset.images / name) for name in dataset.faces]
    noises = []
    for path in args.artifacts:
        artifact = open_artifact(path)
        reference = open_artifact(args.reference) if args.reference else find_reference(artifact)
        tensors = [prepare(image, artifact.manifest.input, artifact.manifest.input.size).tensor for image in images]
        noises.append(measure_sqnr(artifact, reference, tensors))
        write_json(args.json, noises)
        print(noise_table(noises[-1]), end="\n\n", flush=True)
    print(f"records: {args.json}")
    return 0


def _drawing_names(photos: Iterable[Path], folder: Path) -> Iterable[Path]:
    """``photo.jpg`` for each; photographs of one name from several folders get a number."""
    taken: set[str] = set()
    last: dict[str, int] = {}
    for photo in photos:
        name, number = photo.stem, last.get(photo.stem, 1)
        while name in taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken.add(name)
        last[photo.stem] = number
        yield folder / f"{name}.jpg"


if __name__ == "__main__":
    sys.exit(run_command(main))

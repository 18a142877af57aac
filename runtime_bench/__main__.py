"""``python -m runtime_bench``: what an artifact finds, what it costs, and what it lost."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from model.artifact import Artifact, open_artifact
from model.cli import Parser, add_size, parse_size, run_command
from model.errors import UserError
from model.files import atomic_file
from model.postprocess import Thresholds
from model.preprocess import load_image, prepare
from runtime_bench.detect import artifact_detector, open_detector
from runtime_bench.draw import draw_detections
from runtime_bench.drift import References, ap_drop
from runtime_bench.evaluate import evaluate
from runtime_bench.latency import RUNS, measure_latency
from runtime_bench.record import Result, write_results
from runtime_bench.report import results_table
from runtime_bench.samples import PORTRAIT, sample_set
from runtime_bench.widerface import WiderFace, load_validation

DYNAMIC_LATENCY_SIZE = (640, 640)


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
    run.add_argument(
        "--wider", type=Path, metavar="ROOT", help="WIDER FACE: val/images and val/ground_truth (default: sample photographs, a smoke test)"
    )
    run.add_argument(
        "--list", type=Path, metavar="FILE", help="images to evaluate, event/file.jpg a line (default: all of the validation set)"
    )
    run.add_argument("--limit", type=_positive, metavar="N", help="evaluate the first N images only")
    run.add_argument("--threads", type=_positive, default=1, metavar="T", help="of the latency measurement (default: %(default)s)")
    run.add_argument("--runs", type=_positive, default=RUNS, metavar="N", help="latency runs after warm-up (default: %(default)s)")
    run.add_argument("--json", type=Path, default=Path("build/bench/onnx.json"), metavar="FILE", help="the records (default: %(default)s)")

    detect = commands.add_parser(
        "detect",
        help="faces of photographs, drawn",
        description="Find faces with an artifact, or with a checkpoint run by torch.",
        epilog="example: python -m runtime_bench detect build/artifacts/retinaface-none-fp32-640-onnx holiday.jpg --out faces",
    )
    detect.add_argument("model", type=Path, metavar="ARTIFACT_OR_CHECKPOINT", help="artifact folder, .safetensors or .pth file")
    detect.add_argument(
        "photos", type=Path, nargs="*", default=[PORTRAIT], metavar="PHOTO", help="photographs (default: a portrait that is at hand)"
    )
    detect.add_argument(
        "--out", type=Path, default=Path("build/detect"), metavar="DIR", help="folder of the drawings (default: %(default)s)"
    )
    detect.add_argument("--score", type=float, default=Thresholds().score, help="lowest score to keep, 0 to 1 (default: %(default)s)")
    add_size(detect, help="letterbox to this size, checkpoints only, pixels (default: the photograph's own size)")
    detect.add_argument("--json", action="store_true", help="faces as JSON on stdout (pixels of the photograph)")

    args = parser.parse_args()
    return _run(args) if args.command == "run" else _detect(args)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    if args.list and not args.wider:
        raise UserError("--list names images of WIDER FACE; pass --wider ROOT too")
    if args.wider:
        dataset, name = load_validation(args.wider, args.list, args.limit), "WIDER FACE val"
        if args.list or args.limit:
            name += f" ({', '.join(filter(None, (args.list and args.list.name, args.limit and f'first {args.limit}')))})"
    else:
        dataset, name = sample_set(), "the sample photographs"
        if args.limit:
            dataset = WiderFace(dataset.images, dict(list(dataset.faces.items())[: args.limit]))
        print("no --wider: AP is measured on the sample photographs, which is a smoke test and no accuracy", file=sys.stderr)
    references = References(dataset)
    results: list[Result] = []
    failed = False
    try:
        for path in args.artifacts:
            try:
                for result in _measure(open_artifact(path), dataset, name, references, args):
                    results = [*(earlier for earlier in results if earlier.artifact != result.artifact), result]
                    write_results(args.json, results)
                failed |= bool(results[-1].failed_images)
            except UserError as error:
                failed = True
                print(f"error: {error}", file=sys.stderr)
    finally:  # also after Ctrl-C
        if results:
            print(results_table(results))
            print(f"records: {args.json}")
    return 2 if failed else 0


def _measure(
    artifact: Artifact, dataset: WiderFace, dataset_name: str, references: References, args: argparse.Namespace
) -> Iterable[Result]:
    """The result of an artifact, first without AP, then with it."""
    manifest = artifact.manifest
    size = manifest.input.size
    print(f"{artifact.name}: latency ...", file=sys.stderr, flush=True)
    tensor = prepare(load_image(PORTRAIT), manifest.input, size or DYNAMIC_LATENCY_SIZE).tensor
    measured = measure_latency(artifact, tensor, args.threads, args.runs)
    result = Result(
        artifact=artifact.name,
        variant=manifest.variant,
        dcn=manifest.dcn,
        precision=manifest.precision,
        format=manifest.format,
        weights=manifest.weights,
        checkpoint=manifest.reference.sha256,
        runtime=manifest.runtime.name,
        runtime_version=measured.runtime_version,
        device="local",
        machine=_processor(),
        threads=args.threads,
        size_bytes=manifest.model.size_bytes,
        load_ms=measured.load_ms,
        latency_ms=measured.latency_ms,
        latency_input=size or DYNAMIC_LATENCY_SIZE,
        peak_memory_bytes=measured.peak_memory_bytes,
        protocol=f"letterbox-{size[0]}x{size[1]}" if size else "original",
        dataset=dataset_name,
    )
    yield result
    print(f"{artifact.name}: AP on {len(dataset)} images ...", file=sys.stderr, flush=True)
    evaluation = evaluate(artifact_detector(artifact, threads=os.cpu_count() or 1), dataset, artifact.name)
    reference = references.of(artifact)
    yield msgspec.structs.replace(
        result,
        images=len(evaluation.detections),
        failed_images=evaluation.failed,
        image_ms=evaluation.image_ms,
        ap=evaluation.ap,
        ap_reference=reference.ap,
        drop=ap_drop(reference.ap, evaluation.ap),
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _detect(args: argparse.Namespace) -> int:
    if not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score}: a number from 0 to 1 is needed")
    if args.size and args.model.is_dir():
        raise UserError("--size goes with a checkpoint; an artifact has its own input size")
    detector = open_detector(args.model, threads=os.cpu_count() or 1, size=parse_size(args.size) if args.size else None)
    thresholds = Thresholds(score=args.score)
    found, failed = [], False
    for path, out in zip(args.photos, _drawing_names(args.photos, args.out), strict=True):
        try:
            image = load_image(path)
            detections, _ = detector.detect(image, thresholds)
        except UserError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
            continue
        with atomic_file(out) as temporary:
            draw_detections(image, detections).save(temporary, quality=92, subsampling=0)  # thin coloured lines need full-resolution colour
        if not args.json:
            print(f"{path}: {len(detections)} face{'s' * (len(detections) != 1)}, drawn in {out}")
        faces = [
            {"box": box.tolist(), "score": float(score), "landmarks": landmarks.tolist()}
            for box, score, landmarks in zip(detections.boxes, detections.scores, detections.landmarks, strict=True)
        ]
        found.append({"photo": str(path), "width": image.shape[1], "height": image.shape[0], "drawing": str(out), "faces": faces})
    if args.json:
        print(json.dumps(found, indent=2))
    return 2 if failed else 0


def _drawing_names(photos: Iterable[Path], folder: Path) -> Iterable[Path]:
    """``photo.jpg`` for each; photographs of one name from several folders get a number."""
    taken: set[str] = set()
    for photo in photos:
        name, number = photo.stem, 1
        while name in taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken.add(name)
        yield folder / f"{name}.jpg"


if __name__ == "__main__":
    sys.exit(run_command(main))

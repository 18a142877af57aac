"""``python -m quantize``: FP32 artifacts in, INT8 artifacts out that lose no more accuracy than they may."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from model.artifact import Artifact, open_artifact, writing_artifact
from model.cli import Parser, positive, run_command
from model.errors import UserError
from model.files import scratch_folder, write_json
from quantize.calibration import METHODS, PHOTOGRAPHS
from quantize.network import PRECISIONS, WEIGHTS_ONLY
from quantize.recipe import Recipe, read_recipe
from runtime_bench.options import add_dataset, open_dataset
from runtime_bench.samples import PORTRAIT

if TYPE_CHECKING:  # they import torch
    from quantize.gate import Judgement
    from quantize.make import Calibrated
    from runtime_bench.drift import References

MAX_DROP = 0.5
AGREEMENT = 98.0
_JUDGED_BY = 64
"""Photographs that the search is judged by."""
_NOISE_ON = 4
"""Photographs that noise is measured on."""


def main() -> int:
    parser = Parser(prog="python -m quantize", description=__doc__.replace("``", ""))
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run",
        help="INT8 artifacts from FP32 ones, judged by WIDER FACE AP",
        description="Calibrate, quantize, measure AP and speed against FP32; an artifact that loses too much is not written.",
        epilog="example: python -m quantize run build/artifacts/acwface_dcn-decomposed-fp32-640-tflite --photos mine --wider WIDER_FACE",
    )
    run.add_argument("artifacts", type=Path, nargs="+", metavar="ARTIFACT", help="FP32 artifact folder, onnx, tflite or coreml")
    _add_calibration(run)
    run.add_argument(
        "--precision",
        nargs="+",
        choices=list(PRECISIONS),
        metavar="P",
        help=f"{'; '.join(f'{name}: {what}' for name, what in PRECISIONS.items())}"
        "; tflite is made in the first three, coreml in the first and the last, onnx in the first (default: int8, and w8 for coreml)",
    )
    run.add_argument("--recipe", type=Path, metavar="FILE", help="which layers stay in float (default: the first nine and the heads)")
    run.add_argument("--max-drop", type=float, default=MAX_DROP, metavar="AP", help="points of AP on each subset (default: %(default)s)")
    add_dataset(run)
    run.add_argument("--threads", type=positive, default=1, metavar="T", help="of the latency measurement (default: %(default)s)")
    run.add_argument("--out", type=Path, metavar="DIR", help="for artifacts (default: beside the FP32 ones)")
    run.add_argument("--json", type=Path, default=Path("build/bench/int8.json"), metavar="FILE", help="records (default: %(default)s)")

    sensitivity = commands.add_parser(
        "sensitivity",
        help="which layers suffer from being INT8, and a recipe that keeps them in float",
        description="Quantize each layer alone; then keep the worst in float, more and more, until INT8 finds what FP32 finds.",
        epilog="example: python -m quantize sensitivity build/artifacts/acwface_dcn-custom-fp32-640-onnx --photos mine",
    )
    sensitivity.add_argument("artifact", type=Path, metavar="ARTIFACT", help="FP32 artifact folder, onnx, tflite or coreml")
    _add_calibration(sensitivity)
    sensitivity.add_argument(
        "--agreement",
        type=float,
        default=AGREEMENT,
        metavar="AP",
        help="to reach, with what FP32 finds taken for the truth, percent (default: %(default)s)",
    )
    sensitivity.add_argument("--out", type=Path, metavar="FILE", help="the recipe (default: build/recipes/ and the artifact's name)")
    args = parser.parse_args()
    return {"run": _run, "sensitivity": _sensitivity}[args.command](args)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos", type=Path, nargs="+", metavar="DIR", help="photographs to calibrate with (default: samples, a smoke test)"
    )
    parser.add_argument(
        "--count", type=positive, default=PHOTOGRAPHS, metavar="N", help="how many of them to choose (default: %(default)s)"
    )
    parser.add_argument(
        "--method", choices=METHODS, help=f"how ranges are found (default: the recipe's, or {next(iter(METHODS))}, or min-max with int16)"
    )


def _run(args: argparse.Namespace) -> int:
    from quantize.gate import judgements_table
    from quantize.make import calibrate, require_quantizable
    from runtime_bench.drift import References

    if not 0 <= args.max_drop <= 100:
        raise UserError(f"--max-drop {args.max_drop:g}: points of AP from 0 to 100 are needed")
    references = References(open_dataset(args))
    recipe = read_recipe(args.recipe) if args.recipe else None
    judgements: list[Judgement] = []
    for path in args.artifacts:
        fp32 = open_artifact(path)
        manifest = fp32.manifest
        require_quantizable(fp32)
        if recipe and (recipe.variant, recipe.dcn, recipe.format) != (manifest.variant, manifest.dcn, manifest.format):
            raise UserError(f"{args.recipe} is for {recipe.variant}-{recipe.dcn} in {recipe.format}, {path.name} is not that")
        print(f"{fp32.name}:", file=sys.stderr, flush=True)
        calibrated = calibrate(fp32, _choose(args, fp32), _show_stage, args.precision or ())
        kept = recipe.kept if recipe else calibrated.network.kept
        for precision in args.precision or [common for common in ("int8", WEIGHTS_ONLY) if common in calibrated.network.precisions]:
            # 16 bits have room for all that was seen.
            usual = "min-max" if precision == "int16" else next(iter(METHODS))
            method = args.method or (recipe.method if recipe else usual)
            judgements.append(_make(args, calibrated, precision, method, kept, references))
            write_json(args.json, judgements)
            if not judgements[-1].passed:
                _say_why(args, calibrated, precision, method, kept)
    print(judgements_table(judgements))
    print(f"records: {args.json}")
    return 0 if all(one.passed for one in judgements) else 2


def _make(
    args: argparse.Namespace, calibrated: Calibrated, precision: str, method: str, kept: Sequence[str], references: References
) -> Judgement:
    """Make, judge, and keep what passes."""
    from quantize.gate import judge
    from quantize.make import write_int8

    fp32 = calibrated.artifact
    out = (args.out or fp32.path.parent) / calibrated.name(precision)
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent, ".int8-") as folder:
        write_int8(calibrated, method, kept, folder / out.name, _show_stage, precision)
        int8 = open_artifact(folder / out.name)
        _show_stage("measuring accuracy and speed")
        pictures = args.json.parent / "int8" / out.name
        judgement = judge(fp32, int8, method, kept, references, args.max_drop, args.threads, pictures)
        if judgement.passed:
            with writing_artifact(out) as fresh:
                shutil.copytree(int8.path, fresh, dirs_exist_ok=True)
            print(f"{out}: photographs that changed most, FP32 and INT8: {pictures}")
    return judgement


def _say_why(args: argparse.Namespace, calibrated: Calibrated, precision: str, method: str, kept: Sequence[str]) -> None:
    """What has not been written, and which layers suffer."""
    from quantize.gate import explain
    from quantize.sensitivity import measure_sensitivity

    _show_stage("looking for the layers that suffer")
    tensors = calibrated.inputs(_NOISE_ON)
    ranking = measure_sensitivity(calibrated.artifact, calibrated.network, calibrated.ranges(method, precision), tensors)
    print(
        f"error: {calibrated.name(precision)} loses more than {args.max_drop:g} AP and was not written; "
        f"{explain(calibrated, ranking, kept)}",
        file=sys.stderr,
    )


def _sensitivity(args: argparse.Namespace) -> int:
    from quantize.calibration import find_ranges
    from quantize.make import calibrate, require_quantizable
    from quantize.sensitivity import measure_sensitivity, search, write_sensitivity

    fp32 = open_artifact(args.artifact)
    manifest = fp32.manifest
    require_quantizable(fp32)
    chosen = _choose(args, fp32)
    # Every other one calibrates, the rest judges.
    calibrated = calibrate(fp32, chosen.every_other(0), _show_stage)
    judges = chosen.every_other(1).photographs[:_JUDGED_BY]
    method = args.method or next(iter(METHODS))
    ranges = find_ranges(calibrated.histograms, method)
    tensors = calibrated.inputs(_NOISE_ON)
    ranking = measure_sensitivity(fp32, calibrated.network, ranges, tensors)
    print(tabulate([[entry.layer, f"{entry.sqnr_db:.1f}"] for entry in ranking], ["layer", "SQNR dB alone"]))
    steps = search(fp32, calibrated.network, ranges, ranking, judges, args.agreement)
    print()
    print(tabulate([[len(step.kept), f"{step.agreement:.2f}"] for step in steps], ["in float", f"agreement on {len(judges)} photographs"]))
    out = args.out or Path("build/recipes") / f"{fp32.name}.json"
    write_json(out, Recipe(manifest.variant, manifest.dcn, manifest.format, method, steps[-1].kept))
    write_sensitivity(out.with_suffix(".layers.json"), ranking, steps)
    print(f"recipe: {out}")
    if steps[-1].agreement < args.agreement:
        raise UserError(
            f"with {len(steps[-1].kept)} layers in float agreement is {steps[-1].agreement:.2f}, not {args.agreement:g}; try --method"
        )
    return 0


def _choose(args: argparse.Namespace, artifact: Artifact):  # noqa: ANN202
    from model.checkpoint import load_checkpoint
    from quantize.calibration import choose_photographs
    from runtime_bench.detect import artifact_detector, torch_detector
    from runtime_bench.latency import require_readable

    if not args.photos:
        print("no --photos: calibrated with sample pictures, which is a smoke test", file=sys.stderr)
    require_readable(artifact)
    _show_stage("choosing photographs")
    detector = artifact_detector(artifact, threads=os.cpu_count() or 1)
    if detector.runtime.simulated:  # which takes its time
        checkpoint = load_checkpoint(artifact.reference_path)
        checkpoint.detector.use_training_forms()  # the same function, faster
        detector = torch_detector(checkpoint, artifact.manifest.input.size)
    return choose_photographs(args.photos or [PORTRAIT.parent], args.count, detector)


def _show_stage(stage: str) -> None:
    print(f"  {stage} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))

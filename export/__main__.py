"""``python -m export``: a checkpoint in, an artifact that has been run and compared out; and what is in one."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from export.coreml_routes import COREML_ROUTES
from export.coreml_routes import PRECISIONS as COREML_PRECISIONS
from export.deform_routes import ROUTES
from export.rewrites import MOBILE_REWRITES, REWRITES
from export.tflite_routes import PRECISIONS, TFLITE_ROUTES
from model.artifact import Parity, artifact_name, open_artifact
from model.checkpoint import Checkpoint, default_checkpoint, load_checkpoint
from model.cli import Parser, add_size, parse_size, run_command
from model.config import VARIANTS

DEFAULT_VARIANT = "acwface_dcn"
ARTIFACTS = Path("build/artifacts")


def main() -> None:
    parser = Parser(prog="python -m export", description=__doc__.replace("``", ""))
    formats = parser.add_subparsers(dest="format", required=True)

    to_onnx = formats.add_parser(
        "onnx",
        help="ONNX, for ONNX Runtime",
        description="Convert, simplify, check, run on photographs, compare with torch; written only if they agree.",
        epilog="example: python -m export onnx --variant acwface_dcn --size 480 640",
    )
    _add_source(to_onnx, ROUTES, "native", REWRITES)
    shape = to_onnx.add_mutually_exclusive_group()
    _add_fixed_size(shape)
    shape.add_argument("--dynamic", action="store_true", help="accept any input size")

    to_tflite = formats.add_parser(
        "tflite",
        help="TFLite, for LiteRT",
        description="Convert, run on photographs with and without XNNPACK, compare with torch; written only if they agree.",
        epilog="example: python -m export tflite --variant acwface_dcn --dcn decomposed --precision fp16 --size 320",
    )
    _add_source(to_tflite, TFLITE_ROUTES, "decomposed", MOBILE_REWRITES)
    _add_fixed_size(to_tflite)
    to_tflite.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="fp16: weights stored so, half the file (default: %(default)s)"
    )

    to_coreml = formats.add_parser(
        "coreml",
        help="Core ML, for iOS 16 and newer",
        description="Convert, evaluate what was saved on photographs, compare with torch; written only if they agree.",
        epilog="example: python -m export coreml --variant acwface_dcn --dcn bounded --precision fp16 --size 320",
    )
    _add_source(to_coreml, COREML_ROUTES, "decomposed", MOBILE_REWRITES)
    _add_fixed_size(to_coreml)
    to_coreml.add_argument(
        "--precision", choices=COREML_PRECISIONS, default="fp16", help="of weights and arithmetic (default: %(default)s)"
    )

    explained = formats.add_parser(
        "explain",
        help="what a TFLite artifact is made of",
        description="List operators, which of them XNNPACK takes, and which LiteRT's GPU delegate does not take, with the reason.",
        epilog="example: python -m export explain build/artifacts/acwface_dcn-decomposed-fp32-640-tflite",
    )
    explained.add_argument("artifact", type=Path, metavar="ARTIFACT", help="artifact folder")
    args = parser.parse_args()
    {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml, "explain": _explain}[args.format](args)


def _add_source(parser: argparse.ArgumentParser, routes: Iterable[str], default_route: str, rewrites: Iterable[str]) -> None:
    """What every format takes: a checkpoint, how to rewrite it, where to put the artifact."""
    parser.add_argument("--variant", choices=list(VARIANTS), help=f"network (default: that of --checkpoint, else {DEFAULT_VARIANT})")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights: .safetensors or a public .pth (default: those the project ships)"
    )
    parser.add_argument(
        "--dcn", choices=list(routes), default=default_route, help="route of the deformable convolutions (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"the artifact's folder (default: {ARTIFACTS}/ and a name made of the above)"
    )
    parser.add_argument(
        "--no-rewrite",
        choices=[*rewrites, "all"],
        action="append",
        default=[],
        metavar="NAME",
        help=f"leave an exact rewrite out, may be repeated: {', '.join(rewrites)}; or all of them: all (default: none)",
    )


def _add_fixed_size(parser: argparse._ActionsContainer) -> None:
    add_size(parser, default=[640], help="fixed input size in pixels, one number for a square (default: 640)")


def _onnx(args: argparse.Namespace) -> None:
    from export.onnx_export import export_onnx  # here, so that --help and wrong arguments need not wait for the converters

    checkpoint, dcn = _open_source(args)
    size = None if args.dynamic else parse_size(args.size)
    out = args.out or ARTIFACTS / artifact_name(checkpoint.detector.config.variant, dcn, "fp32", size, args.format)
    _say(out, export_onnx(checkpoint, dcn, size, out, _show_stage, _left_out(args)))


def _tflite(args: argparse.Namespace) -> None:
    from export.tflite_export import export_tflite

    checkpoint, dcn = _open_source(args)
    size = parse_size(args.size)
    out = args.out or ARTIFACTS / artifact_name(checkpoint.detector.config.variant, dcn, args.precision, size, args.format)
    _say(out, export_tflite(checkpoint, dcn, args.precision, size, out, _show_stage, _left_out(args)))


def _coreml(args: argparse.Namespace) -> None:
    from export.coreml_export import export_coreml

    checkpoint, dcn = _open_source(args)
    size = parse_size(args.size)
    out = args.out or ARTIFACTS / artifact_name(checkpoint.detector.config.variant, dcn, args.precision, size, args.format)
    _say(out, export_coreml(checkpoint, dcn, args.precision, size, out, _show_stage, _left_out(args)))


def _explain(args: argparse.Namespace) -> None:
    from export.explain import explain

    print(explain(open_artifact(args.artifact)))


def _open_source(args: argparse.Namespace) -> tuple[Checkpoint, str]:
    """The checkpoint, and the route of its deformable layers."""
    checkpoint = load_checkpoint(args.checkpoint, args.variant) if args.checkpoint else default_checkpoint(args.variant or DEFAULT_VARIANT)
    config = checkpoint.detector.config
    print(f"{config.variant}: {checkpoint.source}", file=sys.stderr)
    return checkpoint, args.dcn if config.deform else "none"


def _left_out(args: argparse.Namespace) -> list[str]:
    return list(REWRITES) if "all" in args.no_rewrite else args.no_rewrite


def _show_stage(stage: str) -> None:
    print(f"  {stage} ...", file=sys.stderr, flush=True)


def _say(out: Path, parity: Parity) -> None:
    landmarks = f", {parity.landmarks_px:.1e} px on landmarks" if parity.landmarks_px else ""
    print(f"{out}: differs from torch by {parity.scores:.1e} on scores, {parity.boxes_px:.1e} px on boxes{landmarks}")


if __name__ == "__main__":
    sys.exit(run_command(main))

"""``python -m export``: a checkpoint in, an artifact that has been run and compared out."""

from __future__ import annotations

import sys
from pathlib import Path

from export.deform_routes import ROUTES
from export.rewrites import REWRITES
from model.artifact import artifact_name
from model.checkpoint import default_checkpoint, load_checkpoint
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
    to_onnx.add_argument("--variant", choices=list(VARIANTS), help=f"network (default: that of --checkpoint, else {DEFAULT_VARIANT})")
    to_onnx.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights: .safetensors or a public .pth (default: those the project ships)"
    )
    to_onnx.add_argument(
        "--dcn", choices=list(ROUTES), default="native", help="route of the deformable convolutions (default: %(default)s)"
    )
    shape = to_onnx.add_mutually_exclusive_group()
    add_size(shape, default=[640], help="fixed input size in pixels, one number for a square (default: 640)")
    shape.add_argument("--dynamic", action="store_true", help="accept any input size")
    to_onnx.add_argument(
        "--out", type=Path, metavar="DIR", help=f"the artifact's folder (default: {ARTIFACTS}/ and a name made of the above)"
    )
    to_onnx.add_argument(
        "--no-rewrite",
        choices=list(REWRITES),
        action="append",
        default=[],
        metavar="NAME",
        help=f"leave an exact rewrite out, may be repeated: {', '.join(REWRITES)} (default: all are applied)",
    )
    args = parser.parse_args()

    checkpoint = load_checkpoint(args.checkpoint, args.variant) if args.checkpoint else default_checkpoint(args.variant or DEFAULT_VARIANT)
    config = checkpoint.detector.config
    dcn = args.dcn if config.deform else "none"
    size = None if args.dynamic else parse_size(args.size)
    out = args.out or ARTIFACTS / artifact_name(config.variant, dcn, "fp32", size, args.format)

    from export.onnx_export import export_onnx  # here, so that --help and wrong arguments need not wait for the converters

    print(f"{config.variant}: {checkpoint.source}", file=sys.stderr)
    parity = export_onnx(checkpoint, dcn, size, out, lambda stage: print(f"  {stage} ...", file=sys.stderr, flush=True), args.no_rewrite)
    measured = f"{parity.scores:.1e} on scores, {parity.boxes_px:.1e} px on boxes, {parity.landmarks_px:.1e} px on landmarks"
    print(f"{out}: differs from torch by {measured}")


if __name__ == "__main__":
    sys.exit(run_command(main))

"""``python -m model``: what the networks are, and checkpoints of other layouts turned into ours."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import dataclasses
import json
import sys
from pathlib import Path

from model.checkpoint import load_checkpoint, save_checkpoint
from model.cli import Parser, run_command
from model.config import VARIANTS
from model.cost import measure_cost
from model.detector import build_detector
from model.errors import UserError


def main() -> None:
    parser = Parser(prog="python -m model", description=__doc__.replace("``", ""))
    commands = parser.add_subparsers(dest="command", required=True)

    summary = commands.add_parser(
        "summary", help="parameters and multiply-accumulates of every variant", epilog="example: python -m model summary --size 320"
    )
    summary.add_argument("--size", type=int, default=640, help="side of the square input, pixels (default: %(default)s)")
    summary.add_argument("--json", action="store_true", help="a JSON list instead of a table")

    convert = commands.add_parser(
        "convert",
        help="read a public RetinaFace, ACWFace or BiRetina checkpoint, write one of ours",
        epilog="example: python -m model convert mine.pth --out mine.safetensors",
    )
    convert.add_argument("checkpoint", type=Path, help="a .pth file (or a .safetensors file, to check it)")
    convert.add_argument("--variant", choices=list(VARIANTS), help="what it must be (default: what it is)")
    convert.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")

    args = parser.parse_args()
    if args.command == "summary":
        _summary(args.size, args.json)
    else:
        if args.out.suffix != ".safetensors":
            raise UserError(f"--out {args.out}: the name must end in .safetensors")
        loaded = load_checkpoint(args.checkpoint, args.variant)
        save_checkpoint(loaded.detector, args.out, loaded.source)
        print(f"{args.out}: {loaded.detector.config.variant}, {loaded.source}")


def _summary(size: int, as_json: bool) -> None:
    if size < 1:
        raise UserError(f"--size {size}: a positive number of pixels is needed")
    rows = [
        {"variant": name, "size": size} | dataclasses.asdict(measure_cost(build_detector(config), size, size))
        for name, config in VARIANTS.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'variant':26}{'params':>12}{'macs':>10}{'thop params':>14}{'thop macs':>12}   ({size}x{size})")
    for row in rows:
        published = f"{row['thop_params'] / 1e3:>13.3f}K{row['thop_macs'] / 1e9:>11.3f}G"
        print(f"{row['variant']:26}{row['params']:>12,}{row['macs'] / 1e9:>9.3f}G{published}")


if __name__ == "__main__":
    sys.exit(run_command(main))

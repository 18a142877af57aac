"""What commands of several rooms ask alike: which photographs to judge by."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.cli import positive
from model.errors import UserError
from runtime_bench.samples import sample_set
from runtime_bench.widerface import WiderFace, load_validation


def add_dataset(parser: argparse.ArgumentParser, limit: int | None = None) -> None:
    """Add ``--wider``, ``--list`` and ``--limit``, which is ``limit`` by default."""
    parser.add_argument("--wider", type=Path, metavar="ROOT", help="holds val/images and val/ground_truth (default: sample photographs)")
    parser.add_argument("--list", type=Path, metavar="FILE", help="images to evaluate, event/file.jpg a line (default: the validation set)")
    default = f" (default: {limit})" if limit else ""
    parser.add_argument("--limit", type=positive, default=limit, metavar="N", help=f"evaluate the first N images only{default}")


def open_dataset(args: argparse.Namespace) -> WiderFace:
    """The dataset of those options; raises as :func:`runtime_bench.widerface.load_validation` does."""
    if args.list and not args.wider:
        raise UserError("--list names images of WIDER FACE; pass --wider ROOT too")
    if args.wider:
        return load_validation(args.wider, args.list, args.limit)
    print("no --wider: AP is measured on the sample photographs, which is a smoke test and no accuracy", file=sys.stderr)
    return sample_set(args.limit)

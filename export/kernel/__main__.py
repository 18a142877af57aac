"""``python -m export.kernel``: build the deformable kernel's libraries, and measure it."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import os
import sys
from pathlib import Path

from export.kernel import NATIVE, VERSION
from export.kernel.build import build, describe, targets
from export.kernel.headers import HEADERS, check_headers, fetch_headers
from model.cli import Parser, run_command
from model.errors import UserError
from model.files import only_here


def main() -> None:
    parser = Parser(prog="python -m export.kernel", description=__doc__.replace("``", ""))
    commands = parser.add_subparsers(dest="command", required=True)

    to_build = commands.add_parser(
        "build", help="the libraries, for everything that this machine can build for", epilog="example: python -m export.kernel build"
    )
    for headers in HEADERS:
        option = f"--{headers.variable.lower().replace('_', '-')}"
        to_build.add_argument(
            option, metavar="DIR", default=os.environ.get(headers.variable), help=f"C headers of {headers.name} (default: fetched)"
        )
    to_build.set_defaults(run=_build)

    to_bench = commands.add_parser(
        "bench",
        help="against ONNX Runtime's DeformConv, on every shape of the model",
        epilog="example: python -m export.kernel bench --threads 1 --rounds 5",
    )
    to_bench.add_argument("--threads", type=int, default=1, metavar="N", help="of ONNX Runtime (default: %(default)s)")
    to_bench.add_argument("--rounds", type=int, default=15, metavar="N", help="interleaved rounds (default: %(default)s)")
    to_bench.set_defaults(run=_bench)

    to_count = commands.add_parser(
        "count",
        help="ARM instructions on every shape of the model, exactly, under emulation",
        epilog="example: python -m export.kernel count",
    )
    to_count.set_defaults(run=_count)

    args = parser.parse_args()
    args.run(args)


def _build(args: argparse.Namespace) -> None:
    # Two at once would write the same objects.
    with only_here(NATIVE, lambda: print(f"another build is at work in {NATIVE}; waiting", file=sys.stderr, flush=True)):
        _build_alone(args)


def _build_alone(args: argparse.Namespace) -> None:
    found, missing = targets()
    includes, failures = [], []
    for headers in HEADERS:
        folder = getattr(args, headers.variable.lower())
        try:
            include = check_headers(headers, Path(folder)) if folder else fetch_headers(headers, NATIVE / "include")
            includes.append(f"{headers.variable}={include}")
        except UserError as error:
            failures.append(str(error))
    print(f"kernel {VERSION}")
    for target in found:
        for library in build(target, NATIVE / target.name, includes):
            print(f"  {describe(library)}")
    for line in missing:
        print(f"  left out: {line}")
    if failures:
        raise UserError("; ".join(failures))


def _bench(args: argparse.Namespace) -> None:
    from export.kernel.bench import bench  # here, so that building needs no runtime

    if args.threads < 1 or args.rounds < 1:
        raise UserError("--threads and --rounds must be positive")
    print(bench(args.threads, args.rounds, progress=lambda line: print(f"  {line} ...", file=sys.stderr, flush=True)))


def _count(args: argparse.Namespace) -> None:
    from export.kernel.count import count

    print(count(progress=lambda line: print(f"  {line} ...", file=sys.stderr, flush=True)))


if __name__ == "__main__":
    sys.exit(run_command(main))

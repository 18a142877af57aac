"""``python -m export.kernel``: build the kernel's libraries for everything that this machine can build for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from export.kernel import NATIVE, VERSION
from export.kernel.build import build, describe, targets
from export.kernel.headers import HEADERS, fetch_headers
from model.cli import Parser, run_command
from model.errors import UserError


def main() -> None:
    parser = Parser(prog="python -m export.kernel", description=__doc__.replace("``", ""))
    for headers in HEADERS:
        option = f"--{headers.variable.lower().replace('_', '-')}"
        parser.add_argument(
            option, metavar="DIR", default=os.environ.get(headers.variable), help=f"C headers of {headers.name} (default: fetched)"
        )
    args = parser.parse_args()
    found, missing = targets()
    includes, failures = [], []
    for headers in HEADERS:
        folder = getattr(args, headers.variable.lower())
        try:
            includes.append(f"{headers.variable}={Path(folder).resolve() if folder else fetch_headers(headers, NATIVE / 'include')}")
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


if __name__ == "__main__":
    sys.exit(run_command(main))

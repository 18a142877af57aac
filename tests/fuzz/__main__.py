"""``python -m tests.fuzz``: look for files that the readers of foreign bytes cannot stand.

Coverage-guided, by atheris (https://github.com/google/atheris), which is not among the project's packages: pip install atheris. What is
found lies in ``build/fuzz/TARGET/``; what was tried is a line of ``build/fuzz/log.jsonl``.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

from model.cli import Parser, positive, run_command
from model.errors import UserError

OUT = Path("build/fuzz")
HANG = 10
"""Seconds that one input may take."""


def main() -> int:
    parser = Parser(prog="python -m tests.fuzz", description=__doc__.partition("\n\n")[0].replace("``", ""))
    parser.epilog = "example: python -m tests.fuzz image pth --seconds 60"
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="kinds of files (default: all)")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="for each of them (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="only add up what earlier runs have tried")
    args = parser.parse_args()
    if args.show:
        print(_table())
        return 0
    if importlib.util.find_spec("atheris") is None:
        raise UserError("atheris is not installed; run: .venv/bin/pip install atheris")
    from tests.fuzz.targets import TARGETS

    if unknown := sorted(set(args.targets) - set(TARGETS)):
        raise UserError(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    failed = False
    for name in args.targets or TARGETS:
        tried = _fuzz(name, args.seconds)
        failed |= bool(tried["findings"])
        print(f"{name}: {tried['runs']} inputs in {tried['seconds']:.0f} s, {len(tried['findings'])} findings", flush=True)
        for finding in tried["findings"]:
            print(f"  {finding}", flush=True)
        OUT.mkdir(parents=True, exist_ok=True)
        with (OUT / "log.jsonl").open("a") as log:
            log.write(json.dumps(tried) + "\n")
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> dict:
    """A process after the other until the time is over: one ends when it crashes."""
    start, runs, findings = time.monotonic(), 0, []
    out = OUT / name
    out.mkdir(parents=True, exist_ok=True)
    while (left := int(seconds - (time.monotonic() - start))) > 0:
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.one",
            name,
            str(out),
            f"-max_total_time={left}",
            f"-timeout={HANG}",
            "-rss_limit_mb=8000",
        ]
        # Output into a file: a pipe would be held open by whatever an input has started.
        with (out / "output.txt").open("wb") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
        said = (out / "output.txt").read_text(errors="replace")
        counts = re.findall(r"^#(\d+)\s", said, re.MULTILINE)
        runs += int(counts[-1]) if counts else 0
        findings += re.findall(r"^FINDING (.*)", said, re.MULTILINE)
        if code:
            newest = max(out.glob("*-*"), key=lambda path: path.stat().st_mtime, default=None)
            findings.append(f"the process ended with {code}; input: {newest}")
            if not counts:
                raise UserError(f"{name} does not start; see {out / 'output.txt'}")
    return {"target": name, "seconds": time.monotonic() - start, "runs": runs, "findings": sorted(set(findings))}


def _table() -> str:
    added: dict[str, list[float]] = {}
    for line in (OUT / "log.jsonl").read_text().splitlines() if (OUT / "log.jsonl").is_file() else ():
        tried = json.loads(line)
        total = added.setdefault(tried["target"], [0, 0.0])
        total[0] += tried["runs"]
        total[1] += tried["seconds"]
    rows = [[name, f"{runs:,}", f"{seconds / 60:.1f}"] for name, (runs, seconds) in added.items()]
    rows.append(["together", f"{sum(runs for runs, _ in added.values()):,}", f"{sum(seconds for _, seconds in added.values()) / 60:.1f}"])
    return tabulate(rows, ["target", "inputs", "minutes"], tablefmt="github", disable_numparse=True, colalign=("left", "right", "right"))


if __name__ == "__main__":
    sys.exit(run_command(main))

"""``python -m tests.chaos``: end commands at random moments, and look whether something half-written is taken for whole.

Each command runs once to its end; then it is started again and again, and its whole process group is sent SIGKILL, SIGINT or SIGTERM. The
moment is drawn over the processor time that the command takes, so that it means the same on a busy machine. After each of them:

- every artifact opens, runs, and is of the digests that it gives; every record, report, picture, checkpoint and log can be read;
- after SIGINT and SIGTERM, too: no traceback; of SIGINT, one line; no new hidden or temporary file;
- no process is left.

At last every command runs to its end in what has been left behind. Linux only: processes are looked up in /proc.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import csv
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from PIL import Image
from tabulate import tabulate

from model.artifact import MANIFEST, open_artifact
from model.checkpoint import default_checkpoint, load_checkpoint, save_checkpoint
from model.cli import Parser, positive, run_command
from model.errors import UserError
from model.files import sha256
from model.postprocess import Thresholds
from model.preprocess import load_image
from quantize.gate import Judgement
from runtime_bench.detect import artifact_detector
from runtime_bench.record import read_results
from runtime_bench.samples import PORTRAIT, sample_set
from train.pseudo import read_pseudo_labels

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = {signal.SIGKILL: 5, signal.SIGINT: 4, signal.SIGTERM: 1}
"""How often each is sent."""
PATIENCE = 300
"""Seconds that a command may take to end, on a machine that does other things meanwhile."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Folders(NamedTuple):
    """Where everything happens."""

    root: Path

    @property
    def out(self) -> Path:
        """What commands write into."""
        return self.root / "out"

    @property
    def scratch(self) -> Path:
        """The temporary folder of every process."""
        return self.root / "tmp"

    @property
    def data(self) -> Path:
        """A WIDER FACE root of the sample photographs, a recipe and weights to train with."""
        return self.root / "data"


class Case(NamedTuple):
    """A command, and what makes it begin anew."""

    words: Callable[[Folders], list[str]]
    stale: tuple[str, ...] = ()
    """What is removed before each start, so that there is something to do, relative to the output folder."""
    remade: tuple[str, ...] = ()
    """What is removed before every other start: both the first and a later result have to survive."""
    needs: str | None = None
    """A case whose result it does not make by itself."""


def _make(*words: str) -> Callable[[Folders], list[str]]:
    # Everything that the project ships; nothing from beside it.
    given = ("CHECKPOINT=", "WIDER=", "LIST=", "PEOPLE=", "CALIBRATION=", "SIZE=64", "PRECISION=fp32", "LIMIT=2", "MAX_DROP=100")
    return lambda folders: ["make", "--no-print-directory", f"OUT={folders.out}", "VARIANT=retinaface", *given, *words]


def _train(*words: str) -> Callable[[Folders], list[str]]:
    def command(folders: Folders) -> list[str]:
        fill = {"data": folders.data, "out": folders.out}
        return [sys.executable, "-m", "train", *(word.format(**fill) for word in words)]

    return command


def _train_run(folders: Folders) -> list[str]:
    words = ["run", "--config", "{data}/recipe.toml", "--data", "{data}", "--no-eval", "--threads", "1", "--out", "{out}/train"]
    words += ["--init", "{data}/teacher.safetensors", "--teacher", "{data}/teacher.safetensors"]
    return _train(*words)(folders) + ["--resume"] * (folders.out / "train" / "state.pt").exists()


def _artifacts(format: str) -> tuple[str, ...]:
    return (f"artifacts/retinaface-none-fp32-64-{format}",)


CASES = {
    "export-onnx": Case(_make("export-onnx"), ("choices",), _artifacts("onnx")),
    "export-tflite": Case(_make("export-tflite"), ("choices",), _artifacts("tflite")),
    "export-coreml": Case(_make("export-coreml"), ("choices",), _artifacts("coreml")),
    "bench-onnx": Case(_make("bench-onnx"), (), ("bench/onnx.json",)),
    "quantize": Case(_make("quantize", "FORMATS=onnx"), (), ("bench/int8.json", "artifacts/retinaface-none-int8-64-onnx")),
    "detect": Case(_make("detect"), (), ("detect",)),
    "bench-report": Case(_make("bench-report"), (), ("bench/report.html",), "bench-onnx"),
    "train": Case(_train_run, (), ("train",)),
    "pseudo": Case(
        _train("pseudo", "--data", "{data}", "--teacher", "{data}/teacher.safetensors", "--threads", "1", "--out", "{out}/pseudo.jsonl"),
        ("pseudo.jsonl",),
        ("pseudo.jsonl.partial",),
    ),
    "refit": Case(
        _train("refit", "{data}/teacher.safetensors", "--data", "{data}", "--threads", "1", "--out", "{out}/refit.safetensors"),
        (),
        ("refit.safetensors",),
    ),
}

_RECIPE = """variant = "retinaface"
steps = 12
batch_norm = "frozen"
checkpoint_minutes = 0.0001

[data]
batches = [{ size = 64, images = 2 }]
longest_side = 128
"""


def main() -> int:
    parser = Parser(prog="python -m tests.chaos", description=__doc__.partition("\n\n")[0].replace("``", ""))
    parser.epilog = "example: python -m tests.chaos export-onnx train --times 10"
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--times", type=positive, default=50, metavar="N", help="moments, taken in turn by the cases")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), metavar="DIR", help="where everything happens; emptied first")
    args = parser.parse_args()
    if unknown := sorted(set(args.cases) - set(CASES)):
        raise UserError(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    if args.out.exists() and any(args.out.iterdir()) and not (args.out / "tried.jsonl").exists():
        raise UserError(f"{args.out} holds something else; choose another folder")
    shutil.rmtree(args.out, ignore_errors=True)
    folders = Folders(args.out.resolve())
    _prepare(folders)
    chosen = args.cases or list(CASES)
    needed = [name for name in CASES if name in {*chosen, *(CASES[name].needs for name in chosen)}]
    seconds = {name: _to_its_end(name, folders) for name in needed}
    moments = random.Random(args.seed)
    tried, checked = [], set()
    for number in range(args.times):
        name = chosen[number % len(chosen)]
        which = moments.choices(list(SIGNALS), SIGNALS.values())[0]
        one = _end(name, folders, which, moments.uniform(0, seconds[name]), number % (2 * len(chosen)) < len(chosen), checked)
        print(f"{number + 1}/{args.times} {one['case']}: {one['signal']} after {one['seconds']:.1f} s{' (over)' * one['over']}", flush=True)
        for fault in one["faults"]:
            print(f"  {fault}", flush=True)
        tried.append(one)
        with (folders.root / "tried.jsonl").open("a") as log:
            log.write(json.dumps(one) + "\n")
    faults = _afterwards(needed, folders, checked)
    print(f"\n{_table(tried)}\n")
    for fault in faults:
        print(f"afterwards: {fault}")
    return 1 if faults or any(one["faults"] for one in tried) else 0


def _prepare(folders: Folders) -> None:
    images = folders.data / "train" / "images" / "0--Parade"
    for folder in (folders.out, folders.scratch, images):
        folder.mkdir(parents=True)
    (folders.root / "tried.jsonl").touch()
    lines = []
    samples = sample_set()
    # Often enough for looking at them to take as long as the imports before it: else hardly a moment falls into it.
    for (name, faces), copy in itertools.product(samples.faces.items(), range(12)):
        photograph = images / f"{Path(name).stem}-{copy}.jpg"
        Image.fromarray(load_image(samples.images / name)).resize((160, 128)).save(photograph)
        lines += [f"# 0--Parade/{photograph.name}", *("20 20 30 40" + " -1" * 16 for _ in faces.boxes)]
    (folders.data / "train" / "label.txt").write_text("\n".join(lines) + "\n")
    (folders.data / "recipe.toml").write_text(_RECIPE)
    save_checkpoint(default_checkpoint("retinaface").detector, folders.data / "teacher.safetensors", "shipped")


def _start(name: str, folders: Folders) -> subprocess.Popen:
    # What a make that runs this has been given is none of the business of those that it starts.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")}
    with (folders.root / "output.txt").open("wb") as output:
        return subprocess.Popen(
            CASES[name].words(folders),
            cwd=ROOT,
            env=environment | {"TMPDIR": str(folders.scratch)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # In the background shells have it ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def _to_its_end(name: str, folders: Folders) -> float:
    """Processor time that a command takes, seconds; a :class:`UserError` where it fails."""
    before = _children_seconds()
    for stale in CASES[name].stale:
        _remove(folders.out / stale)
    code = _start(name, folders).wait()
    if code:
        raise UserError(f"{name} fails by itself, with exit code {code}; see {folders.root / 'output.txt'}")
    seconds = _children_seconds() - before
    print(f"{name}: {seconds:.1f} s of processor time", flush=True)
    return seconds


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(name: str, folders: Folders, which: signal.Signals, moment: float, remade: bool, checked: set[str]) -> dict:
    case = CASES[name]
    for stale in (*case.stale, *(case.remade if remade else ())):
        _remove(folders.out / stale)
    hidden, logged = set(_hidden(folders)), _log_rows(folders)
    process = _start(name, folders)
    try:
        while process.poll() is None and _session_seconds(process.pid) < moment:
            time.sleep(0.01)
        over = process.poll() is not None
        if not over:
            os.killpg(process.pid, which)
            process.wait(PATIENCE)
        faults = [f"left running: {line}" for line in _left_running(process.pid)]
    except subprocess.TimeoutExpired:
        over, faults = False, [f"has not ended {PATIENCE} s later"]
    finally:
        _kill(process)
    said = (folders.root / "output.txt").read_text(errors="replace")
    faults += _what_is_not_whole(folders, checked)
    if _log_rows(folders) < logged:
        faults.append(f"log.csv had {logged} rows, and has {_log_rows(folders)}")
    if which != signal.SIGKILL and not over:
        faults += _said_wrongly(said, which, process.returncode)
        faults += [f"left behind: {path}" for path in sorted(set(_hidden(folders)) - hidden)]
    shutil.rmtree(folders.scratch)
    folders.scratch.mkdir()
    return {"case": name, "signal": which.name, "seconds": moment, "over": over, "faults": faults}


def _kill(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _said_wrongly(said: str, which: signal.Signals, code: int) -> list[str]:
    """What a person who pressed Ctrl-C should not have to read, or should have read."""
    faults = []
    for traceback in re.findall(r"^Traceback.*?(?=^\S(?!.*Traceback)[^\n]*$)", said, re.MULTILINE | re.DOTALL):
        if str(ROOT) in traceback.replace(f"{ROOT}/.venv", ""):  # else of the interpreter's own start
            faults.append("a traceback: " + said[said.index("Traceback") :][-600:])
            break
    if "Exception ignored" in said:
        faults.append("an exception that was ignored: " + said[said.index("Exception ignored") :][:600])
    if which == signal.SIGINT and not faults:
        lines = re.findall(r"^interrupted$", said, re.MULTILINE)
        # None where the command had just ended, or had not begun: then make, or the interpreter, is ended by the signal itself.
        if len(lines) > 1 or (not lines and code != -which):
            faults.append(f"exit code {code}, and {len(lines)} lines say that it was interrupted: {said[-300:]}")
    return faults


def _what_is_not_whole(folders: Folders, checked: set[str]) -> list[str]:
    """Every file that commands have written, but for hidden ones, is read as whoever comes next would.

    Args:
        folders: where.
        checked: digests of descriptions of artifacts that have been run; added to.
    """
    faults = []
    for path in sorted(folders.out.rglob("*")):
        parts = path.relative_to(folders.out).parts
        if any(part.startswith(".") for part in parts) or parts[0] == "choices":
            continue
        try:
            if len(parts) == 2 and parts[0] == "artifacts":
                _run_artifact(path, checked)
            elif path.is_file() and parts[0] != "artifacts":
                _read(path)
        except Exception as error:
            faults.append(f"{path.relative_to(folders.out)}: {type(error).__name__}: {error}")
    return faults


def _run_artifact(path: Path, checked: set[str]) -> None:
    artifact = open_artifact(path)
    digest = sha256(path / MANIFEST)
    if digest not in checked:
        artifact_detector(artifact, threads=1).detect(load_image(PORTRAIT), Thresholds())
        checked.add(digest)


def _read(path: Path) -> None:
    if path.name == "int8.json":
        assert msgspec.json.decode(path.read_bytes(), type=list[Judgement])
    elif path.suffix == ".json":
        assert read_results(path)
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "is cut"
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1, "rows of different lengths"
    elif path.suffix == ".md":
        assert path.read_text().endswith("\n"), "is cut"
    elif path.suffix == ".jpg":
        load_image(path)
    elif path.suffix == ".safetensors":
        load_checkpoint(path)
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".jsonl":
        read_pseudo_labels(path)
    elif path.suffix != ".partial":  # which says of itself that it is not whole
        raise AssertionError("nobody knows what it is")


def _log_rows(folders: Folders) -> int:
    log = folders.out / "train" / "log.csv"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def _hidden(folders: Folders) -> list[Path]:
    """Files and folders under temporary names."""
    return [*folders.out.rglob(".*"), *folders.scratch.iterdir()]


def _processes(session: int) -> list[list[str]]:
    """Fields of ``/proc/PID/stat`` from the state on, of every process of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == session:
            found.append([*fields, path.parent.name])
    return found


def _session_seconds(session: int) -> float:
    """Processor time of a session's processes, and of those that they have waited for."""
    return _TICK * sum(sum(map(int, fields[11:15])) for fields in _processes(session))


def _left_running(session: int) -> list[str]:
    """Command lines of a session's processes that a few seconds do not end."""
    for _ in range(50):
        left = [fields[-1] for fields in _processes(session) if fields[0] != "Z"]
        if not left:
            return []
        time.sleep(0.1)
    return [Path("/proc", number, "cmdline").read_text().replace("\0", " ") for number in left if Path("/proc", number).exists()]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _afterwards(names: list[str], folders: Folders, checked: set[str]) -> list[str]:
    """Every command runs once more, a while later."""
    for path in _hidden(folders):
        os.utime(path, (0, 0))
    for name in names:
        try:
            _to_its_end(name, folders)
        except UserError as error:
            return [str(error)]
    return _what_is_not_whole(folders, checked) + [f"left behind: {path}" for path in _hidden(folders)]


def _table(tried: list[dict]) -> str:
    rows = []
    for name in dict.fromkeys(one["case"] for one in tried):
        of_case = [one for one in tried if one["case"] == name]
        ended = [sum(one["signal"] == which.name and not one["over"] for one in of_case) for which in SIGNALS]
        rows.append([name, *ended, sum(one["over"] for one in of_case), sum(bool(one["faults"]) for one in of_case)])
    rows.append(["together", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    return tabulate(rows, ["command", *(which.name for which in SIGNALS), "over before", "faults"], tablefmt="github")


if __name__ == "__main__":
    sys.exit(run_command(main))

"""``python -m tests.fuzz.one TARGET FOLDER``: feed one reader, in this process, until the time is over or it crashes.

libFuzzer drives it through atheris; inputs that end in an exception are kept, one for each place, and the run goes on.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import atheris
import numpy as np

MEMORY = 6 << 30
"""Bytes of data that a reader may hold, libraries included."""

name, out = sys.argv[1], Path(sys.argv[2])
PACKAGES = ["model", "runtime_bench", "train", "quantize", "PIL", "tomllib"]
"""Whose branches guide the fuzzer. The rest is too much, or is no Python."""

with atheris.instrument_imports(include=PACKAGES, enable_loader_override=False):
    from model.errors import UserError
    from runtime_bench.detect import artifact_detector
    from runtime_bench.latency import memory_limit
    from tests.fuzz import targets, trees
    from tests.fuzz.targets import TARGETS, Guard, reproducers

from torch._weights_only_unpickler import Unpickler  # noqa: E402

Unpickler.load = atheris.instrument_func(Unpickler.load)

warnings.simplefilter("ignore")
target = TARGETS[name]
folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
guard = Guard(folder)
found: set[str] = set()


def require_readable(artifact) -> None:
    """As that of :mod:`runtime_bench.latency`, by a copy of this process: starting another takes longer than reading a file."""
    guard.on = False
    said = folder / "said.txt"
    child = os.fork()
    if not child:
        for number in (signal.SIGABRT, signal.SIGALRM, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # libFuzzer's would take them for its own
        signal.alarm(5)
        limit = memory_limit(*artifact.manifest.input.size) + (1 << 30)  # this process is larger than a fresh one
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            network = artifact_detector(artifact, threads=1).runtime
            for _ in range(2):
                network.run(np.zeros((1, 3, *artifact.manifest.input.size), np.float32))
        except UserError as error:
            said.write_text(str(error))
            os._exit(2)
        except BaseException as error:
            said.write_text("".join(traceback.format_exception(error)))
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    guard.on = True
    if os.WIFSIGNALED(status):
        raise UserError(f"the process that ran it was ended ({signal.strsignal(os.WTERMSIG(status))})")
    if os.WEXITSTATUS(status) == 2:
        raise UserError(said.read_text())
    if status:
        raise AssertionError(said.read_text())


targets.require_readable = require_readable


def place(error: BaseException) -> str:
    """Kind of the error and where it was raised, and from which line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    root = str(Path(__file__).parents[2])
    ours = [
        frame for frame in frames if frame.filename.startswith(root) and "/tests/" not in frame.filename and ".venv" not in frame.filename
    ]
    line = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} {Path(line.filename).name}:{line.lineno}"


def keep(what: str, data: bytes, detail: str) -> None:
    if what in found:
        return
    found.add(what)
    file = out / "findings" / hashlib.sha256(what.encode()).hexdigest()[:12]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    file.with_suffix(".txt").write_text(f"{what}\n{detail}")
    print(f"FINDING {what}: {detail.strip().splitlines()[-1][:200]}", flush=True)


def once(data: bytes) -> None:
    guard.on, guard.seen = True, None
    try:
        target.read(data, folder)
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            guard.on = False
            keep(f"message {place(error)}", data, f"{len(str(error))} characters: {str(error)[:300]!r}")
    except Exception as error:
        guard.on = False
        keep(place(error), data, "".join(traceback.format_exception(error)[-12:]))
    finally:
        guard.on = False
    if guard.seen:
        keep(f"escape {guard.seen[:60]}", data, guard.seen)
    once.count += 1
    if once.count % 2000 == 0:
        gc.collect()


once.count = 0
form = target.form() if target.form else None


def change(data: bytes, limit: int, seed: int) -> bytes:
    """Mostly what keeps the file well-formed."""
    if form is not None and seed % 4:
        try:
            new = trees.mutate(form, data, seed)
        except Exception:
            return atheris.Mutate(data, limit)
        if len(new) <= limit:
            return new
    return atheris.Mutate(data, limit)


def main() -> None:
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in [*target.seeds(), *(path.read_bytes() for path in reproducers(name))]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.stdout.flush()
    arguments = [sys.argv[0], *sys.argv[3:], f"-artifact_prefix={out}/", str(corpus)]
    atheris.Setup(arguments, once, **({"custom_mutator": change} if form else {}))
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()

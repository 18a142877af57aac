"""LiteRT's and TensorFlow's command-line program ``benchmark_model`` on a phone, beside our own figures; the user brings it.

Its options and what it prints are those of "TFLite Model Benchmark Tool with C++ Binary", its documentation.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from model.artifact import Artifact
from model.errors import UserError
from model.files import sha256
from runtime_bench.devices import Device
from runtime_bench.latency import WARMUP, Timing
from runtime_bench.record import BenchmarkModel

_AARCH64 = 183
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_TAKE = "take the one for Android on arm64 (android_aarch64)"


def check_program(path: Path) -> None:
    """A :class:`UserError` where a phone could not run it. A script is taken for what it is."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise UserError(f"--benchmark-model {path}: {error.strerror}") from None
    machine = int.from_bytes(head[18:20], "little")
    if head.startswith(b"\x7fELF") and machine != _AARCH64:
        raise UserError(f"{path} is built for another processor (ELF machine {machine}); {_TAKE}")
    if b"/lib/ld-linux" in head:
        raise UserError(f"{path} is built for Linux, whose C library Android does not have; {_TAKE}")


def why_not(artifact: Artifact) -> str | None:
    """What keeps the program from running an artifact; ``None`` where nothing does."""
    if artifact.manifest.format != "tflite":
        return f"it is {artifact.manifest.format}"
    return "it has operators of the project's own" if artifact.manifest.runtime.library else None


def run_program(path: Path, device: Device, model: str, threads: int, timing: Timing) -> BenchmarkModel:
    """Run it on a device.

    Args:
        path: of the program, here.
        device: where.
        model: the model file, there.
        threads: of the runtime.
        timing: how often, at least; it goes on for a second in any case.

    Raises:
        UserError: it fails, or prints something else than it should.
    """
    options = [f"--graph={model}", f"--num_threads={threads}", f"--num_runs={timing.runs}", f"--warmup_runs={WARMUP}"]
    options += [f"--min_secs={timing.seconds:g}"] if timing.seconds else []
    script = '{ chmod 755 "$0" && "$0" "$@"; } 2>&1; echo "exit code $?"'
    said = device.run(["sh", "-c", script, device.push(path), *options])
    *lines, ended = [line.strip() for line in said.splitlines() if line.strip()]
    if ended != "exit code 0":
        complaints = [line for line in lines if re.match("ERROR|FATAL", line)] or lines
        raise UserError(": ".join([ended, *complaints[-1:]]))
    return read_output("\n".join(lines), sha256(path))


def read_output(text: str, program: str) -> BenchmarkModel:
    """What it has printed; a :class:`UserError` where figures are missing or cannot be true.

    Args:
        text: everything, of stdout and stderr.
        program: SHA-256 of it.
    """
    timings = re.search(rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup", text)
    series = re.findall(r"^(?:INFO: )?(count=\d+ .*)$", text, flags=re.MULTILINE)
    memory = re.search(rf"emory footprint[^:\n]*\(MB\): init={_NUMBER} overall={_NUMBER}", text)
    if timings is None or len(series) != 2:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"what it printed is not benchmark_model's: {last[:200]}")
    init, first = (float(value) / 1e3 for value in timings.groups())
    (warmup_runs, warmup, *_), (runs, mean, std, least, most) = map(_series, series)
    if not all(0 < value < math.inf for value in (init, first, warmup, mean, least, most)) or not 0 <= std < math.inf or least > most:
        raise UserError(f"its times cannot be true: {series[-1][:200]}; measure again")
    return BenchmarkModel(
        program=program,
        init_ms=init,
        first_run_ms=first,
        warmup_ms=warmup,
        warmup_runs=warmup_runs,
        mean_ms=mean,
        std_ms=std,
        min_ms=least,
        max_ms=most,
        runs=runs,
        init_memory_bytes=memory and round(float(memory[1]) * 2**20),
        memory_bytes=memory and round(float(memory[2]) * 2**20),
    )


def _series(line: str) -> tuple[int, float, float, float, float]:
    """Runs; mean, standard deviation, minimum and maximum, milliseconds. Of runs that took the same time, it prints that time only."""
    values = {name: _number(value) for name, value in re.findall(r"(\w+)=([^\s(]+)", line)}
    same = values.get("curr", math.nan)
    mean, least, most = (values.get(name, same) / 1e3 for name in ("avg", "min", "max"))
    return int(values["count"]), mean, values.get("std", 0.0) / 1e3, least, most


def _number(text: str) -> float:
    return float(text) if re.fullmatch(_NUMBER, text) else math.nan

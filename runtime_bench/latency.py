"""Latency, load time and memory of an artifact, in processes that do nothing else.

``python -m runtime_bench.latency INPUT.npy ARTIFACT`` is such a process, and takes plain ONNX files too: it imports numpy and the runtime,
not torch, so that neither its memory nor its threads are in the figures. There are several, one after the other: where a process finds its
memory makes a difference of a few percent that lasts for all of its runs.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from model.artifact import Artifact, open_artifact
from model.cli import Parser, run_command
from model.errors import UserError
from model.preprocess import in_layout
from runtime_bench.record import Latency, PhoneRun
from runtime_bench.runtimes import open_runtime

if TYPE_CHECKING:  # it imports torch
    from runtime_bench.devices import Device
    from runtime_bench.peers import Peer

WARMUP, RUNS, PROCESSES = 10, 50, 5


class Timing(NamedTuple):
    """How often the network runs."""

    runs: int = RUNS
    """Measured ones, of all processes together."""
    seconds: float = 0
    """Each process goes on until its measured runs have taken as long."""
    processes: int = PROCESSES
    """No more than runs."""
    mlperf: bool = False


USUAL = Timing()
MLPERF = Timing(runs=1024, seconds=60, processes=1, mlperf=True)
"""As many samples and seconds as the performance run of MLPerf Mobile's single-stream scenario asks for, each sample sent when the last has
been answered; its figure is the 90th percentile (https://github.com/mlcommons/mobile_open, rules/mobile_inference_rules.adoc). What it is
not: a result that may be called MLPerf's, which needs its models, its data, its load generator and, in the time, postprocessing."""
MLPERF_COOL_DOWN_S = 300
"""Those rules wait so long between tries."""
COOL_DOWN_S = 60

_ROUNDS = 1500
"""A quarter of a second: longer than the slices in which a system shares its processors."""


class Measurement(msgspec.Struct, frozen=True):
    """Only of what has run: the figures are ``None`` where something else stands in for the runtime."""

    runtime: str
    runtime_version: str
    accelerator: str
    load_ms: float | None = None
    latency_ms: Latency | None = None
    peak_memory_bytes: int | None = None
    first_run_ms: float | None = None
    images_per_s: float | None = None
    phone: PhoneRun | None = None
    """Not known here: whoever sees the whole measurement fills it in."""


class _Process(msgspec.Struct, frozen=True):
    """What one process has measured; nothing where something stands in for the runtime."""

    runtime: str
    runtime_version: str
    accelerator: str
    load_ms: float | None = None
    first_run_ms: float | None = None
    run_ms: tuple[float, ...] = ()
    """Of every run after warm-up."""
    yardstick_ms: float | None = None
    peak_memory_bytes: int | None = None


def measure_latency(
    artifact: Artifact | Peer,
    tensor: np.ndarray,
    threads: int,
    timing: Timing = USUAL,
    device: Device | None = None,
) -> Measurement:
    """Run an artifact in fresh processes.

    Args:
        artifact: what to run; of peers, ONNX files.
        tensor: ``(1, 3, H, W)`` float32, the input of every run.
        threads: for the runtime.
        timing: how often.
        device: where; this machine by default.

    Raises:
        UserError: with the process's own words, when one failed; what it measured cannot be read, or cannot be true.
    """
    shares = [len(share) for share in np.array_split(np.arange(timing.runs), min(timing.processes, timing.runs))]
    measured: list[_Process] = []
    for share in shares:
        options = ("--runs", share, "--seconds", timing.seconds, *(_limited(artifact, tensor) if device is None else ()))
        measured.append(_read(in_clean_process("runtime_bench.latency", tensor, [artifact], threads, *options, device=device)))
        if measured[0].load_ms is None:
            return Measurement(measured[0].runtime, measured[0].runtime_version, measured[0].accelerator)
    times = np.concatenate([process.run_ms for process in measured])
    median, p10, p90, p99 = (float(value) for value in np.percentile(times, (50, 10, 90, 99)))
    return Measurement(
        measured[0].runtime,
        measured[0].runtime_version,
        measured[0].accelerator,
        float(np.median([process.load_ms for process in measured])),
        Latency(
            median=median,
            p90=p90,
            p99=p99,
            min=float(times.min()),
            runs=len(times),
            warmup=WARMUP,
            p10=p10,
            processes=len(shares),
            yardstick_ms=float(np.mean([one.yardstick_ms for one in measured])),
            seconds=float(times.sum()) / 1e3,
            mlperf=timing.mlperf,
        ),
        max(process.peak_memory_bytes for process in measured),
        float(np.median([process.first_run_ms for process in measured])),
        float(1e3 / times.mean()),
    )


def _read(said: str) -> _Process:
    try:
        measured = msgspec.json.decode(said, type=_Process)
    except msgspec.MsgspecError as error:  # a number that is none is written as null
        raise UserError(f"what was measured cannot be read ({error}); measure again") from None
    if measured.load_ms is not None and not min(measured.load_ms, *measured.run_ms) > 0:
        raise UserError("a run took no time, or less: the clock went backwards; measure again")
    return measured


def in_clean_process(
    module: str,
    tensor: np.ndarray,
    artifacts: Sequence[Artifact | Peer],
    threads: int,
    *options: object,
    device: Device | None = None,
) -> str:
    """What ``python -m MODULE INPUT.npy ARTIFACT... --threads N OPTIONS`` prints; a :class:`UserError` with its own words if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        tensor_file = Path(folder) / "input.npy"
        np.save(tensor_file, tensor)
        if device is not None:
            there = [device.push(path) for path in (tensor_file, *(artifact.path for artifact in artifacts))]
            return device.run([*device.python, "-m", module, *there, "--threads", str(threads), *map(str, options)])
        command = [sys.executable, "-m", module, tensor_file, *(artifact.path for artifact in artifacts), "--threads", threads]
        finished = subprocess.run([str(word) for word in (*command, *options)], capture_output=True, text=True)
    if finished.returncode < 0:
        ended = signal.strsignal(-finished.returncode) or f"signal {-finished.returncode}"
        raise UserError(f"{artifacts[0].path}: the process that ran it was ended ({ended}); if the model file is damaged, export it again")
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise UserError(lines[-1].removeprefix("error: "))
    return finished.stdout


def require_readable(artifact: Artifact) -> None:
    """Let another process read and run a TFLite file before this one does: LiteRT trusts what it reads, and bytes that do not hold
    together end the process, or take all of the memory. A :class:`UserError` if they do."""
    if artifact.manifest.format == "tflite" and artifact.manifest.input.size:
        tensor = np.zeros((1, 3, *artifact.manifest.input.size), np.float32)
        in_clean_process("runtime_bench.latency", tensor, [artifact], 1, "--runs", 1, *_limited(artifact, tensor))


def _limited(artifact: Artifact | Peer, tensor: np.ndarray) -> tuple[object, ...]:
    """Options for a process that is the first to read a file."""
    return ("--memory", memory_limit(*tensor.shape[2:])) if artifact.path.is_dir() and artifact.manifest.format == "tflite" else ()


def memory_limit(height: int, width: int) -> int:
    """Bytes of data that a process may have in which a network reads an input of this size: several times what a detector needs."""
    return (2 << 30) + 500 * height * width


def _measure(path: Path, tensor: np.ndarray, threads: int, runs: int, seconds: float) -> _Process:
    if path.suffix == ".onnx":
        from runtime_bench.runtimes.onnxruntime import OnnxFile

        layout, load = "NCHW", lambda: OnnxFile(path, threads)
    else:
        artifact = open_artifact(path)
        layout, load = artifact.manifest.input.layout, lambda: open_runtime(artifact, threads)
    before = _peak_memory()
    start = time.perf_counter()
    runtime = load()
    load_ms = 1e3 * (time.perf_counter() - start)
    if runtime.simulated:
        return _Process(runtime.name, runtime.version, runtime.accelerator)
    tensor = in_layout(tensor, layout)
    yardstick_ms = _yardstick()
    times: list[float] = []
    left = 1e3 * seconds
    while len(times) < WARMUP + runs or left > 0:
        start = time.perf_counter()
        runtime.run(tensor)
        times.append(1e3 * (time.perf_counter() - start))
        if len(times) > WARMUP:
            left -= times[-1]
    peak = _peak_memory() - before
    yardstick_ms = (yardstick_ms + _yardstick()) / 2
    return _Process(runtime.name, runtime.version, runtime.accelerator, load_ms, times[0], tuple(times[WARMUP:]), yardstick_ms, peak)


def _yardstick() -> float:
    """Mean of several rounds of the same work on one core, milliseconds. Not the median: what is taken away is taken in large pieces."""
    values = np.linspace(0, 1, 1 << 16, dtype=np.float32)
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        np.exp(np.sin(values))
    return 1e3 * (time.perf_counter() - start) / _ROUNDS


def _peak_memory() -> int:
    """Bytes. Linux's ``ru_maxrss`` would do, were it not inherited from the parent through fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def main() -> None:
    parser = Parser(prog="python -m runtime_bench.latency", description="Measure one artifact in this process; JSON on stdout.")
    parser.add_argument("input", type=Path, help="the input tensor, .npy")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="of the runtime (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=RUNS, help="measured, after warm-up (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0, help="go on until the measured runs have taken as long (default: %(default)s)")
    parser.add_argument("--memory", type=int, metavar="BYTES", help="of data that this process may have (default: any amount)")
    args = parser.parse_args()
    if args.memory:
        resource.setrlimit(resource.RLIMIT_DATA, (args.memory, args.memory))
    print(msgspec.json.encode(_measure(args.artifact, np.load(args.input), args.threads, args.runs, args.seconds)).decode())


if __name__ == "__main__":
    sys.exit(run_command(main))

"""Where an artifact's time goes: each operator's time, work and achieved rate, against what the machine can do at best."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.benchmark import latency_input
from runtime_bench.latency import require_readable
from runtime_bench.profilers import WARMUP, OperatorTime
from runtime_bench.roofline import Peak, measure_peak, processor
from runtime_bench.runtimes import Runtime, open_runtime

RUNS = 20
_CLOCK_MS = 1e-3
"""What the runtimes' clocks resolve: no operator is taken to be faster."""


class Operator(Struct, frozen=True, forbid_unknown_fields=True):
    """One operator as the runtime executes it, or several of one kind together."""

    op: str
    """Kind, in the runtime's words."""
    name: str
    """The runtime's name of the node; of several, how many they are."""
    ms: float
    """Median over runs."""
    share: float
    """Of the time of all operators, 0 to 1."""
    macs: int | None
    """Multiply-accumulates that the network needs here; ``None`` where nothing is counted."""
    gflops: float | None
    """Achieved, 10^9 operations a second, two for a multiply-accumulate."""
    of_peak: float | None
    """:attr:`gflops` over :attr:`runtime_bench.roofline.Peak.gflops`."""
    gbs: float | None
    """Achieved, 10^9 bytes read and written a second; ``None`` where the runtime does not say."""
    of_copy: float | None
    """:attr:`gbs` over :attr:`runtime_bench.roofline.Peak.copy_gbs`; above 1 where the data stays in a cache."""


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """Of one artifact."""

    artifact: str
    runtime: str
    runtime_version: str
    machine: str
    """The processor's name."""
    threads: int
    input: tuple[int, int]
    """Height and width."""
    runs: int
    """Measured, after :attr:`warmup` that were not."""
    warmup: int
    peak: Peak
    network_ms: float
    """The whole network without a profiler, median over as many runs."""
    operators_ms: float
    """Sum over :attr:`operators`."""
    kinds: tuple[Operator, ...]
    """Operators of one kind together, slowest first."""
    operators: tuple[Operator, ...]
    """Slowest first."""


def profile_artifact(artifact: Artifact, threads: int, runs: int = RUNS) -> Profile:
    """Time every operator of an artifact.

    Raises:
        UserError: the artifact cannot be run here, or its runtime has no profile.
    """
    require_readable(artifact)
    tensor = latency_input(artifact.manifest)
    runtime = open_runtime(artifact, threads)
    network_ms = _median_ms(runtime, tensor, runs)
    name, version = runtime.name, runtime.version
    del runtime  # its threads would wait beside the profiled ones
    timed = _operator_times(artifact, tensor, threads, runs)
    peak = measure_peak(threads)
    total = sum(operator.ms for operator in timed)
    kinds: dict[str, list[OperatorTime]] = {}
    for operator in timed:
        kinds.setdefault(operator.op, []).append(operator)
    return Profile(
        artifact=artifact.name,
        runtime=name,
        runtime_version=version,
        machine=processor(),
        threads=threads,
        input=tensor.shape[2:],
        runs=runs,
        warmup=WARMUP,
        peak=peak,
        network_ms=network_ms,
        operators_ms=total,
        kinds=_rated([_together(same) for same in kinds.values()], total, peak),
        operators=_rated(timed, total, peak),
    )


def _median_ms(runtime: Runtime, tensor: np.ndarray, runs: int) -> float:
    times = []
    for _ in range(WARMUP + runs):
        start = time.perf_counter()
        runtime.run(tensor)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[WARMUP:]))


def _operator_times(artifact: Artifact, tensor: np.ndarray, threads: int, runs: int) -> list[OperatorTime]:
    name = artifact.manifest.runtime.name
    if name == "onnxruntime":
        from runtime_bench.profilers.onnxruntime import profile_onnxruntime

        return profile_onnxruntime(artifact, tensor, threads, runs)
    if name == "litert":
        from runtime_bench.profilers.litert import profile_litert

        return profile_litert(artifact, tensor, threads, runs)
    raise UserError(f"{artifact.path}: operators of {name} cannot be timed")


def _together(same: Sequence[OperatorTime]) -> OperatorTime:
    macs, sizes = ([value for value in values if value is not None] for values in ([o.macs for o in same], [o.bytes for o in same]))
    return OperatorTime(
        op=same[0].op,
        name=f"{len(same)} of them" if len(same) > 1 else same[0].name,
        ms=sum(operator.ms for operator in same),
        macs=sum(macs) if macs else None,
        bytes=sum(sizes) if len(sizes) == len(same) else None,
    )


def _rated(timed: Iterable[OperatorTime], total_ms: float, peak: Peak) -> tuple[Operator, ...]:
    """With rates and shares, slowest first."""
    operators = []
    for time_ in sorted(timed, key=lambda operator: -operator.ms):
        seconds = max(time_.ms, _CLOCK_MS) / 1e3
        gflops = None if time_.macs is None else 2 * time_.macs / seconds / 1e9
        gbs = None if time_.bytes is None else time_.bytes / seconds / 1e9
        operators.append(
            Operator(
                op=time_.op,
                name=time_.name,
                ms=time_.ms,
                share=time_.ms / total_ms,
                macs=time_.macs,
                gflops=gflops,
                of_peak=None if gflops is None else gflops / peak.gflops,
                gbs=gbs,
                of_copy=None if gbs is None else gbs / peak.copy_gbs,
            )
        )
    return tuple(operators)

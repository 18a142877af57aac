"""Artifacts against each other: interleaved rounds in one process that does nothing else, so that what the machine does meanwhile hits all.

``python -m runtime_bench.compare INPUT.npy ARTIFACT...`` is that process.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from model.artifact import Artifact, Parity, open_artifact
from model.cli import Parser, run_command
from model.errors import UserError
from model.preprocess import in_layout
from runtime_bench.latency import Timing, in_clean_process, measure_latency, require_readable
from runtime_bench.runtimes import open_runtime

ROUNDS, RUNS = 12, 5
"""Rounds, and measured runs of each artifact in a round, after one that is not."""


class Speed(Struct, frozen=True, forbid_unknown_fields=True):
    """One artifact among others."""

    artifact: str
    runtime: str
    runtime_version: str
    machine: str
    """The processor's name."""
    size: tuple[int, int]
    """Height and width of the input."""
    threads: int
    variant: str
    route: str
    """Of the deformable layers; of a naive export ``naive-`` and its route."""
    median_ms: float
    p10_ms: float
    p90_ms: float
    rounds: int
    runs: int
    """In a round."""
    peak_memory_bytes: int
    """What loading and running the model added to a fresh process."""
    vs_naive: float | None
    """How many times faster than the naive export of the same route, or of the first one given where there is none."""
    vs_retinaface: float | None
    """Time over that of the fastest RetinaFace of the same runtime and size."""
    parity: Parity | None
    """From torch, as measured at the export."""


def compare(artifacts: Sequence[Artifact], naive: Sequence[Artifact], tensor: np.ndarray, threads: int, machine: str) -> list[Speed]:
    """Measure artifacts of one runtime and input size.

    Args:
        artifacts: what to judge.
        naive: exports without rewrites, to judge them by.
        tensor: ``(1, 3, H, W)`` float32, the input of every run.
        threads: of the runtimes.
        machine: the processor's name.

    Raises:
        UserError: one of them cannot be run here, or a naive export is of another checkpoint than what it is to be compared with.
    """
    checkpoints = {artifact.manifest.variant: artifact for artifact in artifacts}
    for export in naive:
        other = checkpoints.get(export.manifest.variant, export)
        if export.manifest.reference.sha256 != other.manifest.reference.sha256:
            raise UserError(f"{export.path} and {other.path} were made from different checkpoints; compare files of one")
    everything = [*artifacts, *naive]
    for artifact in everything:
        require_readable(artifact)
    times = msgspec.json.decode(in_clean_process("runtime_bench.compare", tensor, everything, threads), type=list[list[float]])
    medians = [float(np.median(values)) for values in times]
    by_route = {artifact.manifest.dcn: median for artifact, median in zip(naive, medians[len(artifacts) :], strict=True)}
    faces = [median for artifact, median in zip(artifacts, medians, strict=False) if artifact.manifest.variant == "retinaface"]

    speeds = []
    for index, (artifact, values, median) in enumerate(zip(everything, times, medians, strict=True)):
        manifest = artifact.manifest
        base = by_route.get(manifest.dcn, next(iter(by_route.values()), None)) if manifest.dcn != "none" else None
        alone = measure_latency(artifact, tensor, threads, Timing(runs=3, processes=1))
        speeds.append(
            Speed(
                artifact=artifact.name,
                runtime=manifest.runtime.name,
                runtime_version=alone.runtime_version,
                machine=machine,
                size=tensor.shape[2:],
                threads=threads,
                variant=manifest.variant,
                route=manifest.dcn if index < len(artifacts) else f"naive-{manifest.dcn}",
                median_ms=median,
                p10_ms=float(np.percentile(values, 10)),
                p90_ms=float(np.percentile(values, 90)),
                rounds=ROUNDS,
                runs=RUNS,
                peak_memory_bytes=alone.peak_memory_bytes,
                vs_naive=None if base is None else base / median,
                vs_retinaface=median / min(faces) if faces else None,
                parity=manifest.parity,
            )
        )
    return speeds


def comparable(artifacts: Sequence[Artifact]) -> dict[tuple[str, tuple[int, int]], list[Artifact]]:
    """Artifacts by runtime and input size; a :class:`UserError` where one takes any size."""
    groups: dict[tuple[str, tuple[int, int]], list[Artifact]] = {}
    for artifact in artifacts:
        if artifact.manifest.input.size is None:
            raise UserError(f"{artifact.path} takes any size; compare artifacts of a fixed one")
        groups.setdefault((artifact.manifest.runtime.name, artifact.manifest.input.size), []).append(artifact)
    return groups


def _measure(artifacts: Sequence[Artifact], tensor: np.ndarray, threads: int) -> list[list[float]]:
    """Milliseconds of every measured run of every artifact."""
    opened = [(open_runtime(artifact, threads), in_layout(tensor, artifact.manifest.input.layout)) for artifact in artifacts]
    for (runtime, _), artifact in zip(opened, artifacts, strict=True):
        if runtime.simulated:
            raise UserError(
                f"{artifact.path}: {artifact.manifest.runtime.name} is not here and {runtime.name} has no times worth comparing"
            )
    times: list[list[float]] = [[] for _ in opened]
    for _ in range(ROUNDS):
        for (runtime, own), values in zip(opened, times, strict=True):
            runtime.run(own)  # the caches hold another model
            for _ in range(RUNS):
                start = time.perf_counter()
                runtime.run(own)
                values.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = Parser(prog="python -m runtime_bench.compare", description="Measure artifacts in turn in this process; JSON on stdout.")
    parser.add_argument("input", type=Path, help="the input tensor, .npy")
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=1, help="of the runtimes (default: %(default)s)")
    args = parser.parse_args()
    times = _measure([open_artifact(path) for path in args.artifacts], np.load(args.input), args.threads)
    print(msgspec.json.encode(times).decode())


if __name__ == "__main__":
    sys.exit(run_command(main))

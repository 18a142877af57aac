"""All exports of a checkpoint side by side, those that failed among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from model.artifact import Parity, open_artifact
from model.errors import UserError
from runtime_bench.benchmark import benchmark
from runtime_bench.drift import References
from runtime_bench.latency import Timing
from runtime_bench.record import Result


class Export(Struct, frozen=True, forbid_unknown_fields=True):
    """One artifact, or why there is none."""

    artifact: str
    """Its name, which says network, route, precision, size and format."""
    reason: str | None = None
    """What went wrong; ``None`` if nothing did."""
    file: str | None = None
    """Of the model, with its folder."""
    parity: Parity | None = None
    """From torch, as measured at the export."""
    result: Result | None = None
    """Size, latency, AP and its drop."""


def measure_exports(paths: Sequence[Path], failures: Path | None, references: References, threads: int, runs: int) -> Iterator[Export]:
    """One record for each path, made as it is asked for.

    Args:
        paths: folders of artifacts.
        failures: holds a file ``NAME.txt`` with the error for each that could not be made.
        references: the evaluation set, and what FP32 torch finds in it.
        threads, runs: of the latency measurement.
    """
    for path in paths:
        failure = None if failures is None else failures / f"{path.name}.txt"
        try:
            if failure is not None and failure.is_file():  # what lies there is of an earlier export, if anything does
                raise UserError(_last_error(failure))
            artifact = open_artifact(path)
            *_, result = benchmark(artifact, references, threads, Timing(runs))
            reason = f"{len(result.failed_images)} photographs failed" if result.failed_images else None
            yield Export(artifact.name, reason, str(path / artifact.manifest.model.name), artifact.manifest.parity, result)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            yield Export(path.name, str(error))


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines or ["failed without a word"]
    return said[-1]

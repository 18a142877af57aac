"""The result of a benchmark: one record for each (artifact, runtime, device). Tables and reports are views of these."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from model.errors import UserError
from model.files import atomic_file


class Latency(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the network alone, one photograph a run, milliseconds."""

    median: float
    p90: float
    p99: float
    min: float
    runs: int
    """Measured, after :attr:`warmup` that were not."""
    warmup: int


class ImageTimes(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the work around the network, milliseconds for one photograph, median over the evaluated ones; decoding the file not included."""

    preprocess: float
    postprocess: float


class SubsetAP(Struct, frozen=True, forbid_unknown_fields=True):
    """Percent, or percentage points; ``None`` where the subset has no face in the evaluated images."""

    easy: float | None
    medium: float | None
    hard: float | None


class Result(Struct, frozen=True, forbid_unknown_fields=True):
    """What one artifact costs and finds. Everything from :attr:`images` on is ``None`` or 0 until the evaluation has been through."""

    artifact: str
    variant: str
    dcn: str
    precision: str
    format: str
    weights: str
    checkpoint: str
    """SHA-256 of the FP32 checkpoint that the artifact was made from."""
    runtime: str
    """What has run the artifact. Something that stands in for the artifact's own runtime has a name of its own, and measures no costs."""
    runtime_version: str
    device: str
    machine: str
    """The processor's name."""
    threads: int
    """Of the latency measurement; average precision does not depend on them."""
    size_bytes: int
    load_ms: float | None
    latency_ms: Latency | None
    """This, :attr:`load_ms` and :attr:`peak_memory_bytes` are ``None`` where they were not measured."""
    latency_input: tuple[int, int]
    """Height and width of the input that latency was measured on."""
    peak_memory_bytes: int | None
    """What loading and running the model added to the resident memory of a fresh process, at its peak."""
    protocol: str
    """How photographs were scaled: ``original``, or ``letterbox-HxW``."""
    dataset: str
    images: int = 0
    failed_images: tuple[str, ...] = ()
    image_ms: ImageTimes | None = None
    ap: SubsetAP | None = None
    ap_reference: SubsetAP | None = None
    """Of the FP32 torch model, same images, same protocol."""
    drop: SubsetAP | None = None
    """``ap_reference - ap``: positive is a loss."""


def write_results(path: Path, results: list[Result]) -> None:
    """Write a JSON list, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def read_results(path: Path) -> list[Result]:
    """Inverse of :func:`write_results`; a :class:`UserError` that says what is wrong with the file otherwise."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Result])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UserError(f"{path}: {error}; run the benchmark again") from None

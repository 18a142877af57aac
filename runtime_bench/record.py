"""The result of a benchmark: one record for each (artifact, runtime, device). Tables and reports are views of these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from model.errors import UserError

_Time = Annotated[float, Meta(le=1e15)]  # that it is above 0 and in order is said in words, see read_results
_Positive = Annotated[float, Meta(gt=0, le=1e15)]
_Count = Annotated[int, Meta(ge=1, le=10**15)]


class Latency(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the network alone, one photograph a run, milliseconds."""

    median: _Time
    p90: _Time
    p99: _Time
    min: _Time
    runs: int
    """Measured, of all processes together."""
    warmup: int
    """Runs before that in each process, not measured."""
    p10: float | None = None
    """With :attr:`p90` the spread: where two of these do not reach each other's median, more than noise has changed."""
    processes: int = 1
    yardstick_ms: float | None = None
    """Mean time of a fixed piece of work before and after the runs: how fast the machine was meanwhile, whatever else it did."""
    seconds: float | None = None
    """All measured runs together."""
    mlperf: bool = False
    """Whether runs were counted as in MLPerf Mobile's single-stream scenario: see :data:`runtime_bench.latency.MLPERF`. The figure to
    report is :attr:`p90` then."""


class ImageTimes(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the work around the network, milliseconds for one photograph, median over the evaluated ones; decoding the file not included."""

    preprocess: float
    postprocess: float


class SubsetAP(Struct, frozen=True, forbid_unknown_fields=True):
    """Percent, or percentage points; ``None`` where the subset has no face in the evaluated images."""

    easy: float | None
    medium: float | None
    hard: float | None


class Peak(Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine does at best: the best of some tries, on as many threads as what it is compared with."""

    gflops: _Positive
    """10^9 single-precision operations a second in a matrix product of 512x512 by ONNX Runtime; a multiply-accumulate is two."""
    copy_gbs: _Positive
    """10^9 bytes a second, read and written, in a copy of 128 MiB."""


class Roofline(Struct, frozen=True, forbid_unknown_fields=True):
    """How fast the network could be on this machine."""

    peak: Peak
    """Measured in the same run."""
    macs: _Count
    """Multiply-accumulates of the FP32 torch model at the input of the latency measurement. Exact rewrites save some of them."""
    bytes: _Count
    """Of the model file, the input and the outputs: what has to be read and written once."""
    bound_ms: _Positive
    """The longer of the times that the work and the bytes take at the peak rates, of single precision."""


class SubsetInterval(Struct, frozen=True, forbid_unknown_fields=True):
    """Bootstrapped 95 % intervals, percentage points; see :func:`runtime_bench.widerface.drop_intervals`."""

    easy: tuple[float, float] | None
    medium: tuple[float, float] | None
    hard: tuple[float, float] | None


class Spread(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a figure that many detections have."""

    mean: float
    median: float
    p95: float
    """95 % are no worse."""


class SizeDrift(Struct, frozen=True, forbid_unknown_fields=True):
    """Faces of one size, pixels of the photograph."""

    height_from: int
    height_to: int | None
    """Not included; ``None``: any height above."""
    faces: int
    found_before: int
    """By the reference."""
    lost: int
    """Of those."""
    gained: int
    """Of the others."""


class ImageDrift(Struct, frozen=True, forbid_unknown_fields=True):
    """One photograph."""

    name: str
    change: float
    """Detections that have no counterpart, and of those that have one, 1 - IoU and the difference of scores."""
    lost: int
    gained: int
    """Faces."""


class Drift(Struct, frozen=True, forbid_unknown_fields=True):
    """What average precision hides: how detections differ from those of the FP32 torch model on the same photographs."""

    score_threshold: float
    """The artifact's own. Detections that neither side scores higher do not count, and faces are found above it."""
    pairs: int
    """Detections with a counterpart at IoU 0.5 or more."""
    unpaired: int
    """Detections of either side without one."""
    box_iou: Spread | None
    """Of pairs, as are the following; ``None`` where there is no pair."""
    score: Spread | None
    """Absolute difference."""
    landmarks: Spread | None
    """Mean distance of the five points, percent of the face's size (the square root of its box's area)."""
    sizes: tuple[SizeDrift, ...]
    """Faces of the ground truth by height."""
    changed: tuple[ImageDrift, ...]
    """The photographs that changed most, most first."""


class Curve(Struct, frozen=True, forbid_unknown_fields=True):
    """Precision over recall of one subset, each from 0 to 1; from the highest score down."""

    subset: str
    recall: tuple[float, ...]
    precision: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.recall) != len(self.precision):
            raise ValueError("a curve needs a precision for each recall")


class Faces(Struct, frozen=True, forbid_unknown_fields=True):
    """Detections above the artifact's score threshold."""

    boxes: tuple[tuple[float, float, float, float], ...]
    """Left, top, right, bottom in pixels of the photograph."""
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.scores):
            raise ValueError("faces need a score for each box")


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """A photograph that changed."""

    name: str
    before: Faces
    """Of FP32 torch."""
    after: Faces


class DeviceDrift(Struct, frozen=True, forbid_unknown_fields=True):
    """How an artifact on another device differs from itself on this machine, with the same photographs."""

    machine: str
    """This one."""
    scores: float
    """Largest difference over all anchors."""
    boxes_px: float
    landmarks_px: float
    """Pixels of the network's input, as the line before."""
    drift: Drift
    """Of detections."""


class Phone(Struct, frozen=True, forbid_unknown_fields=True):
    """A phone at one moment, as it says itself; ``None``, or not listed, where it says nothing."""

    model: str | None
    soc: str | None
    system: str | None
    governors: dict[str, str]
    """Of the processor's clusters."""
    temperatures_c: dict[str, float]
    """By sensor."""
    thermal_status: int | None
    """Android's: 0 nothing, 1 light, 2 moderate, 3 severe throttling, and up to 6, shutdown."""
    battery_percent: float | None
    battery_c: float | None
    battery_mv: int | None
    charge_uah: int | None
    """What the battery holds."""
    current_ua: int | None
    """Of the battery; makers do not agree on the sign."""
    charging: bool | None
    """Whether it hangs on a charger, USB included."""
    rails_uj: dict[str, int]
    """What each power rail has taken since the phone was started, microjoules."""


class Energy(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the phone as a whole, while latency was measured: with loading, warming up, and whatever else it did."""

    source: str
    """``power rails`` or ``charge counter``."""
    joules: float
    runs: int
    """Of the network, warming up included."""


class PhoneRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A phone before and after latency was measured on it."""

    before: Phone
    after: Phone
    seconds: float
    """Between the two."""
    cool_down_s: float
    """How long it was left alone before that."""
    energy: Energy | None
    """``None`` where it does not tell."""


class BenchmarkModel(Struct, frozen=True, forbid_unknown_fields=True):
    """What LiteRT's own command-line program of that name says of the same file on the same device: one process, random input."""

    program: str
    """SHA-256 of it."""
    init_ms: _Positive
    first_run_ms: _Positive
    warmup_ms: _Positive
    """Mean of :attr:`warmup_runs`, the first included."""
    warmup_runs: _Count
    mean_ms: _Positive
    """Of :attr:`runs`, as the following."""
    std_ms: Annotated[float, Meta(ge=0, le=1e15)]
    min_ms: _Positive
    max_ms: _Positive
    runs: _Count
    """As many as were asked for, or more: it goes on for a second."""
    init_memory_bytes: int | None
    """What loading the model added to the process's memory, as the program itself warns: approximately; ``None`` where it does not say."""
    memory_bytes: int | None
    """The same of everything."""


class EvaluationTimes(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the time of an evaluation went, seconds."""

    total: float
    """From the first photograph to the last figure; FP32 torch's own evaluation not included."""
    network: float
    """Of that, in the network."""
    scoring: float
    """Of that, for average precision."""


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
    """``local``, or as ``--device`` takes it; where an app has measured, the phone and what ran the network, as the app says."""
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
    drop_interval: SubsetInterval | None = None
    """Between which bounds :attr:`drop` lies, as far as the choice of photographs goes."""
    drift: Drift | None = None
    curves: tuple[Curve, ...] = ()
    examples: tuple[Example, ...] = ()
    """Of those that changed most."""
    device_drift: DeviceDrift | None = None
    first_run_ms: float | None = None
    """The run after loading."""
    images_per_s: float | None = None
    """Throughput of the network alone, run after run."""
    roofline: Roofline | None = None
    dataset_digest: str = ""
    """SHA-256 over the evaluated photographs and their faces."""
    accelerator: str = ""
    """What has really run the network: ``cpu``, ``gpu`` or ``npu``; empty where that is not known."""
    phone: PhoneRun | None = None
    """Where latency was measured on one that can be asked."""
    benchmark_model: BenchmarkModel | None = None
    """Where that program was run beside our own measurement."""
    evaluation_s: EvaluationTimes | None = None
    inputs: str = ""
    """SHA-256 over everything that the figures depend on; records that agree on it are of the same measurement."""


def read_results(path: Path) -> list[Result]:
    """What ``model.files.write_json`` wrote of a list of them; a :class:`UserError` that says what is wrong with the file otherwise."""
    try:
        results = msgspec.json.decode(path.read_bytes(), type=list[Result])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; records are what `python -m runtime_bench run` writes, run it again") from None
    for result in results:
        times = result.latency_ms
        if times and not 0 < times.min <= times.median <= times.p90 <= times.p99 or result.load_ms is not None and not result.load_ms > 0:
            raise UserError(
                f"{path}: {result.artifact}: its times cannot be true (the clock went backwards, or somebody changed them); "
                "run the benchmark again"
            )
    return results


def gather_results(results: Iterable[Result]) -> list[Result]:
    """Results of several runs together; of an artifact on one device, in one scaling, the last.

    Raises:
        UserError: an artifact's results are of two checkpoints.
    """
    together: dict[tuple[str, str, str], Result] = {}
    checkpoints: dict[str, str] = {}
    for result in results:
        if checkpoints.setdefault(result.artifact, result.checkpoint) != result.checkpoint:
            raise UserError(
                f"{result.artifact} was made from checkpoint {result.checkpoint[:12]} in one record, from "
                f"{checkpoints[result.artifact][:12]} in another; measure files of one checkpoint, or give them other names"
            )
        together[result.artifact, result.device, result.protocol] = result
    return list(together.values())

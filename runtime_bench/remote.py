"""Artifacts on another device: prepared photographs go there a few at a time, the network's outputs come back and are judged here.

Outputs are kept, a file for each photograph, so that a device that is lost costs only what it was working on.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from model.anchors import make_anchors
from model.artifact import Artifact
from model.errors import UserError
from model.files import atomic_file, sha256
from model.postprocess import decode_boxes, decode_landmarks
from model.preprocess import load_image, prepare
from runtime_bench.benchmark import DYNAMIC_LATENCY_SIZE, artifact_fields, artifact_inputs, cost_fields, curves, is_finished, latency_input
from runtime_bench.benchmark_model import run_program, why_not
from runtime_bench.detect import FaceDetector
from runtime_bench.devices import Device
from runtime_bench.devices.local import Local
from runtime_bench.devices.phone import PhoneWatch
from runtime_bench.drift import References, drift_fields, measure_drift
from runtime_bench.evaluate import evaluate
from runtime_bench.latency import Measurement, Timing, measure_latency, require_readable
from runtime_bench.record import BenchmarkModel, DeviceDrift, Result
from runtime_bench.runtimes import Outputs
from runtime_bench.widerface import WiderFace


@dataclass(frozen=True)
class Recorded:
    """A runtime that knows the answers: outputs that another device gave for the same tensors."""

    folder: Path
    name: str
    version: str
    accelerator: str
    costs: Measurement
    """What the network costs there; nothing where times mean nothing."""
    program: BenchmarkModel | UserError | None
    """What ``benchmark_model`` says of it, or why it says nothing; ``None`` where it was not run."""
    simulated: bool = False

    def run(self, tensor: np.ndarray) -> Outputs:
        with np.load(_file(self.folder, tensor)) as outputs:
            return Outputs(*(outputs[name] for name in Outputs._fields))


def _file(folder: Path, tensor: np.ndarray) -> Path:
    return folder / f"{hashlib.sha256(np.ascontiguousarray(tensor)).hexdigest()}.npz"


class DeviceRuns:
    """Runs of artifacts on devices, made in the background, as many at a time as this machine has cores.

    Args:
        artifacts, devices: every one on every one, and on this machine to compare with.
        references: for the photographs.
        cache: where outputs are kept.
        resume: use those that are kept already.
        threads, timing: of latency measurements.
        cool_down_s: pause before latency is measured on a phone that has done something for us.
        program: ``benchmark_model``, to be run on phones too.
    """

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        devices: Sequence[Device],
        references: References,
        cache: Path,
        resume: bool,
        threads: int,
        timing: Timing,
        cool_down_s: float,
        program: Path | None = None,
    ) -> None:
        self._references, self._cache, self._resume, self.how = references, cache, resume, (threads, timing)
        self._watch, self._program = PhoneWatch(cool_down_s), program
        self._pairs = list(itertools.product(artifacts, (*devices, Local())))
        self._pool = ThreadPoolExecutor(min([cores(), *(device.workers for device in devices)]))
        self._runs: dict[tuple[str, str], Future[Recorded]] = {}
        self._bar: tqdm | None = None

    def of(self, artifact: Artifact, device: str) -> Recorded:
        """Waits for the run; a :class:`UserError` where it failed. The first call starts them all: nothing before is disturbed."""
        if not self._runs:
            total = len(self._pairs) * len(self._references.dataset)
            self._bar = tqdm(total=total, desc="on devices", unit="image", disable=None, leave=False)
            self._runs = {(one.name, other.name): self._pool.submit(self._run, one, other) for one, other in self._pairs}
        return self._runs[artifact.name, device].result()

    def is_finished(self, earlier: Result, artifact: Artifact, device: Device) -> bool:
        """Whether nothing is left to be done for an earlier result of the same inputs."""
        has_run = earlier.benchmark_model and earlier.benchmark_model.program
        return is_finished(earlier) and (not self._runs_program(artifact, device) or has_run == sha256(self._program))

    def close(self) -> None:
        """Give up what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._bar is not None:
            self._bar.close()

    def _run(self, artifact: Artifact, device: Device) -> Recorded:
        dataset = self._references.dataset
        require_readable(artifact)
        folder = self._folder(artifact, device)
        costs = self._costs(artifact, device, folder / "costs.json")
        size = artifact.manifest.input.size
        artifact_there = device.push(artifact.path)
        program = self._run_program(artifact, device, artifact_there, folder)
        with tempfile.TemporaryDirectory() as temporary:
            inputs, outputs = Path(temporary) / "inputs.npy", Path(temporary) / "outputs.npz"
            # Photographs at their own size do not go into one array.
            for names in itertools.batched(dataset.faces, device.shard if size else 1):
                tensors = [tensor for tensor in _tensors(names, artifact, dataset) if not _file(folder, tensor).exists()]
                if tensors:
                    self._watch.has_worked(device.name)
                    np.save(inputs, np.concatenate(tensors))
                    inputs_there = device.push(inputs)
                    outputs_there = f"{inputs_there}.npz"
                    device.run([*device.python, "-m", "runtime_bench.forward", artifact_there, inputs_there, outputs_there])
                    device.pull(outputs_there, outputs)
                    device.drop(outputs_there)
                    device.drop(inputs_there)
                    _keep(folder, tensors, outputs)
                self._bar.update(len(names))
        kept = next(folder.glob("*.npz"), None)
        if kept is None:
            raise UserError(f"none of the {len(dataset)} images under {dataset.images} could be read")
        with np.load(kept) as outputs_of_one:
            return Recorded(folder, *outputs_of_one["runtime"].tolist(), costs, program)

    def _folder(self, artifact: Artifact, device: Device) -> Path:
        """For outputs; empty unless what lies there is of the same inputs and to be gone on from."""
        folder = self._cache / f"{artifact.name}-{device.name.replace(':', '-')}"
        inputs = artifact_inputs(artifact, self._references, *self.how, device.describe())
        whose = folder / "inputs.txt"
        if not self._resume or not whose.is_file() or whose.read_text() != inputs:
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_file(whose) as temporary:
                temporary.write_text(inputs)
        return folder

    def _costs(self, artifact: Artifact, device: Device, file: Path) -> Measurement:
        """Measured where nothing else of ours runs meanwhile: devices with times have one worker."""
        if not device.has_times or device.name == "local":
            return Measurement("", "", "")
        if not file.exists():
            tensor = latency_input(artifact.manifest)
            measured = self._watch.measure(
                device.name, device.phone, artifact.name, lambda: measure_latency(artifact, tensor, *self.how, device=device)
            )
            _keep_figures(file, measured)
        return msgspec.json.decode(file.read_bytes(), type=Measurement)

    def _runs_program(self, artifact: Artifact, device: Device) -> bool:
        return self._program is not None and device.name.partition(":")[0] == "adb" and why_not(artifact) is None

    def _run_program(self, artifact: Artifact, device: Device, artifact_there: str, folder: Path) -> BenchmarkModel | UserError | None:
        if not self._runs_program(artifact, device):
            return None
        file = folder / f"benchmark_model-{sha256(self._program)[:16]}.json"
        if not file.exists():
            what = f"{artifact.name}, benchmark_model"
            try:
                self._watch.rest(device.name, device.phone, what)
                model = f"{artifact_there}/{artifact.manifest.model.name}"
                _keep_figures(file, run_program(self._program, device, model, *self.how))
            except UserError as error:  # costs its own figures and no others
                return UserError(f"{what}: {error}")
        return msgspec.json.decode(file.read_bytes(), type=BenchmarkModel)


def _keep_figures(file: Path, figures: msgspec.Struct) -> None:
    with atomic_file(file) as temporary:
        temporary.write_bytes(msgspec.json.encode(figures))


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tensors(names: Sequence[str], artifact: Artifact, dataset: WiderFace) -> Iterator[np.ndarray]:
    for name in names:
        try:
            image = load_image(dataset.images / name)
        except UserError:
            continue  # the evaluation will say so
        yield prepare(image, artifact.manifest.input, artifact.manifest.input.size).tensor


def _keep(folder: Path, tensors: Sequence[np.ndarray], outputs: Path) -> None:
    """A file for each photograph; each appears whole or not at all."""
    try:
        with np.load(outputs) as values:
            of_all, runtime = {name: values[name] for name in Outputs._fields}, values["runtime"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise UserError("the outputs that a device gave are cut short or damaged; go on with --resume") from None
    if any(len(of_one) != len(tensors) for of_one in of_all.values()):
        raise UserError("a device gave outputs for another number of photographs than it was sent; run it again")
    for index, tensor in enumerate(tensors):
        with atomic_file(_file(folder, tensor)) as temporary:
            np.savez(temporary, runtime=runtime, **{name: of_one[index] for name, of_one in of_all.items()})


def benchmark_on(
    device: Device, artifact: Artifact, runs: DeviceRuns, references: References, earlier: Result | None = None
) -> Iterator[Result]:
    """What an artifact costs and finds on another device, against FP32 torch and against itself on this machine.

    Args:
        device: one of those of ``runs``.
        artifact: what to judge.
        runs: has it running.
        references: the evaluation set, and what FP32 torch finds in it.
        earlier: a result of the same measurement, or of another one.

    Raises:
        UserError: it cannot be run there, or no image can be read; after the result, that ``benchmark_model`` has failed.
    """
    manifest = artifact.manifest
    inputs = artifact_inputs(artifact, references, *runs.how, device.describe())
    if earlier is not None and earlier.inputs == inputs and runs.is_finished(earlier, artifact, device):
        yield earlier
        return
    there, here = runs.of(artifact, device.name), runs.of(artifact, "local")
    found, found_here = (
        evaluate(FaceDetector(recorded, manifest.input, manifest.anchors, manifest.input.size), references.dataset, artifact.name)
        for recorded in (there, here)
    )
    score = manifest.thresholds.score
    yield Result(
        **artifact_fields(artifact, references),
        runtime=there.name,
        runtime_version=there.version,
        device=device.name,
        machine=device.describe(),
        threads=runs.how[0],
        latency_input=manifest.input.size or DYNAMIC_LATENCY_SIZE,
        **cost_fields(there.costs),
        accelerator=there.accelerator,
        phone=there.costs.phone,
        benchmark_model=there.program if isinstance(there.program, BenchmarkModel) else None,
        images=len(found.detections),
        failed_images=found.failed,
        ap=found.ap,
        **drift_fields(references.dataset, references.of(artifact), found, score),
        curves=curves(found, references.dataset),
        device_drift=DeviceDrift(
            Local().describe(),
            *_largest_differences(artifact, there, here, [references.dataset.images / name for name in found.detections]),
            measure_drift(references.dataset, found_here, found, score),
        ),
        inputs=inputs,
    )
    if isinstance(there.program, UserError):
        raise there.program


def _largest_differences(artifact: Artifact, there: Recorded, here: Recorded, photographs: Sequence[Path]) -> tuple[float, float, float]:
    """Over all anchors: scores, and boxes and landmarks in pixels of the network's input."""
    spec, size = artifact.manifest.anchors, artifact.manifest.input.size
    largest = [0.0, 0.0, 0.0]
    for path in photographs:
        tensor = prepare(load_image(path), artifact.manifest.input, size).tensor
        anchors = make_anchors(*tensor.shape[2:], spec.strides, spec.min_sizes)
        decoded = [
            (
                outputs.scores,
                decode_boxes(outputs.box_deltas, anchors, spec.variances),
                decode_landmarks(outputs.landmark_deltas, anchors, spec.variances),
            )
            for outputs in (there.run(tensor), here.run(tensor))
        ]
        largest = [max(worst, float(np.abs(one - other).max(initial=0.0))) for worst, one, other in zip(largest, *decoded, strict=True)]
    return tuple(largest)

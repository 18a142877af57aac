"""Calibration: which photographs, and what ranges they give the activations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector
from tqdm import tqdm

from model.errors import UserError
from model.files import sha256
from model.postprocess import Thresholds
from model.preprocess import InputSpec, load_image, prepare
from runtime_bench.detect import FaceDetector

PHOTOGRAPHS = 128
"""How many are chosen by default."""
FEWEST = 16
_CANDIDATES = 4
"""Photographs that are looked at for each one that is chosen."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FACE = Thresholds(score=0.5)


@dataclass(frozen=True)
class CalibrationSet:
    """Photographs, in the order in which they were chosen."""

    photographs: tuple[Path, ...]
    skipped: int
    """Files that could not be read."""

    def every_other(self, start: int) -> CalibrationSet:
        """Half of them."""
        return CalibrationSet(self.photographs[start::2], 0)

    def digest(self) -> str:
        """SHA-256 over the digests of the files, in order."""
        return hashlib.sha256("".join(sha256(path) for path in self.photographs).encode()).hexdigest()

    def tensors(self, spec: InputSpec, size: tuple[int, int]) -> Iterable[np.ndarray]:
        """``(1, 3, H, W)`` float32 each, as the deployed network gets them."""
        return (prepare(load_image(path), spec, size).tensor for path in self.photographs)


def choose_photographs(folders: Sequence[Path], count: int, detector: FaceDetector) -> CalibrationSet:
    """Choose photographs that differ in light and in the sizes of their faces, always the same ones.

    Of candidates at even steps through the sorted names, those are taken that are furthest from what has been taken: greedy k-centre, over
    brightness, contrast, size of the largest and the smallest face, and number of faces, each in units of its spread.

    Args:
        folders: searched at any depth.
        count: how many to choose.
        detector: finds the faces.

    Raises:
        UserError: no such folder, fewer than :data:`FEWEST` readable photographs, or all of one colour.
    """
    if count < FEWEST:
        raise UserError(f"--count {count}: calibration needs at least {FEWEST} photographs, better {PHOTOGRAPHS}")
    paths = [path for folder in folders for path in _find(folder)]
    step = max(1, len(paths) // (_CANDIDATES * count))
    candidates, features, skipped = [], [], 0
    for path in tqdm(paths[::step], desc="choosing photographs", unit="image", disable=None, leave=False):
        try:
            image = load_image(path)
        except UserError:
            skipped += 1
            continue
        candidates.append(path)
        features.append(_features(image, detector))
    where = ", ".join(map(str, folders))
    if len(candidates) < FEWEST:
        unreadable = f" ({skipped} more cannot be read)" if skipped else ""
        raise UserError(f"{len(candidates)} photographs in {where}{unreadable}; calibration needs at least {FEWEST}, better {PHOTOGRAPHS}")
    values = np.asarray(features)
    if not values[:, 1].any():
        raise UserError(f"every photograph in {where} is of a single colour; calibration needs photographs of people")
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    return CalibrationSet(tuple(candidates[index] for index in _spread(values, count)), skipped)


def _find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; --photos names folders of photographs")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def _features(image: np.ndarray, detector: FaceDetector) -> list[float]:
    light = image[::8, ::8].mean(-1)
    detections, _ = detector.detect(image, _FACE)
    sides = np.sqrt(np.prod(detections.boxes[:, 2:] - detections.boxes[:, :2], axis=1)) / max(image.shape[:2])
    sizes = np.log2(np.clip(sides, 1e-3, 1)) if len(sides) else np.array([-10.0])
    return [light.mean(), light.std(), sizes.max(), sizes.min(), np.log2(1 + len(sides))]


def _spread(points: np.ndarray, count: int) -> list[int]:
    chosen = [int(np.argmin((points**2).sum(1)))]  # the most ordinary one first
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(np.argmax(distance)))
    return chosen


class Histogram:
    """How often an activation has which value, over any number of photographs, in bins that widen as larger values come."""

    BINS = 4096
    SAMPLES = 1 << 16
    """Values of a photograph that are counted, at even steps. The extremes are those of all."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.counts = np.zeros(self.BINS)
        self._reach = 0.0
        """The bins cover minus this to plus this."""

    def add(self, values: np.ndarray) -> None:
        values = values.reshape(-1)
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self._reach == 0:
            self._reach = max(abs(low), abs(high))
            if self._reach == 0:
                return
        while max(abs(low), abs(high)) > self._reach:  # two bins become one
            self._reach *= 2
            middle = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(middle, self.BINS // 4)
        values = values[:: max(1, values.size // self.SAMPLES)]
        places = ((values / self._reach + 1) * (self.BINS / 2)).astype(np.int64)
        self.counts += np.bincount(places.clip(0, self.BINS - 1), minlength=self.BINS)

    def centres(self) -> np.ndarray:
        """``(BINS,)``: the value that each bin stands for."""
        return ((np.arange(self.BINS) + 0.5) / (self.BINS / 2) - 1) * self._reach

    @property
    def reached(self) -> bool:
        """Whether there was anything but zero."""
        return self._reach > 0


Range = tuple[float, float]
"""Lowest and highest value that is told apart, zero among them; what is beyond is clipped."""


def min_max(histogram: Histogram) -> Range:
    return histogram.low, histogram.high


def percentile(histogram: Histogram, share: float = 0.9999) -> Range:
    """Where the outermost values, one in 10,000 on either side, are cut off."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    centres = histogram.centres()
    low, high = (centres[min(np.searchsorted(below, place), len(centres) - 1)] for place in (1 - share, share))
    return max(low, histogram.low), min(high, histogram.high)


def entropy(histogram: Histogram) -> Range:
    """Least Kullback-Leibler divergence, by ONNX Runtime's search."""
    coarse = histogram.counts.reshape(512, -1).sum(1).astype(np.int64)
    edges = np.linspace(-histogram.centres()[-1], histogram.centres()[-1], len(coarse) + 1, dtype=np.float32)
    collector = HistogramCollector("entropy", True, len(coarse), 128, 99.99, "same")
    low, high = collector.get_entropy_threshold((coarse, edges, np.float32(histogram.low), np.float32(histogram.high), 0), 128)
    return max(float(low), histogram.low), min(float(high), histogram.high)


def mean_squared_error(histogram: Histogram, levels: int = 255) -> Range:
    """Least mean squared error of rounding and clipping together, over a grid of both ends, and a finer one round its best."""
    kept = histogram.counts > 0
    values, counts = histogram.centres()[kept], histogram.counts[kept]

    def error(ends: Range) -> float:
        low, high = ends
        step = (high - low) / levels
        if step <= 0:
            return np.inf
        zero = round(-low / step)
        return float((counts * ((np.round(values / step) + zero).clip(0, levels) * step - zero * step - values) ** 2).sum())

    lowest, highest = min(histogram.low, 0.0), max(histogram.high, 0.0)
    best = lowest, highest
    for shares in (np.geomspace(1, 0.02, 24), np.geomspace(1.15, 1 / 1.15, 9), np.geomspace(1.03, 1 / 1.03, 5)):
        lows, highs = (np.unique(np.clip(end * shares, lowest, highest)) for end in best)
        best = min(((low, high) for low in lows for high in (*highs, best[1])), key=error)
    return best


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "mse": mean_squared_error,
    "percentile": percentile,
    "min-max": min_max,
    "entropy": entropy,
}
"""By name, the default first."""


def observe(runs: Iterable[Iterable[tuple[str, np.ndarray]]], total: int) -> dict[str, Histogram]:
    """Histograms of all activations.

    Args:
        runs: what each photograph gives: every float activation with its name.
        total: number of photographs, for the progress bar.
    """
    histograms: dict[str, Histogram] = {}
    for activations in tqdm(runs, total=total, desc="calibrating", unit="image", disable=None, leave=False):
        for name, values in activations:
            histograms.setdefault(name, Histogram()).add(values)
    return histograms


def find_ranges(histograms: Mapping[str, Histogram], method: str) -> dict[str, Range]:
    """A range for each activation, by one of :data:`METHODS`. One that was never anything but zero gets 0 to 1."""
    ranges = {}
    for name, histogram in histograms.items():
        low, high = METHODS[method](histogram) if histogram.reached else (0.0, 1.0)
        ranges[name] = min(float(low), 0.0), max(float(high), 0.0)
    return ranges
